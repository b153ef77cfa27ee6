"""One cell of an experiment: train one arm with one learning rate and one seed, and measure what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import TrainConfig
from ..data.corpus import Corpus, evaluation_batches
from ..data.texts import encoded_text
from ..data.vocabulary import Vocabulary
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..reporter import Reporter
from ..training.evaluation import bits_per_byte, bytes_per_token, evaluate
from ..training.step import Trainer
from .experiments import Arm, Experiment

Array = NDArray[Any]

POINTS = 10  # of each curve
EVAL_TOKENS = 1 << 13  # of the validation split in each evaluation
RESULT_TOKENS = 1 << 16  # of the last one


@dataclass(frozen=True)
class Text:
    """The tokens to train on and to validate with."""

    training: Array
    validation: Array
    tokenizer: Vocabulary
    others: Mapping[str, Text] = field(default_factory=dict)  # the same text in other tokens, by the value of --tokens

    def of(self, config: TrainConfig) -> Text:
        """Return the text in the tokens of `config`."""
        return self.others.get(config.tokens, self)

    @property
    def vocabulary(self) -> int:
        return len(self.tokenizer)

    @classmethod
    def read(cls, config: TrainConfig, characters: int = 0, others: Sequence[str] = ()) -> Text:
        """Read the text of `config`; train on its first `characters`, by default on all but the validation split.

        `others` are the values of --tokens in which the text is needed too.
        """
        corpus = Corpus(encoded_text(config, Reporter()))
        training, validation = corpus.training[:], corpus.validation[:]
        more = {tokens: cls.read(replace(config, tokens=tokens)) for tokens in others if tokens != config.tokens}
        return cls(training[: characters or None], validation, corpus.tokenizer, more)


def run_cell(
    experiment: Experiment, arm: Arm, rate: float, seed: int, text: Text, backend: Backend, steps: int = 0
) -> dict[str, Any]:
    """Train, and return a record that JSON can hold; see `train_cell`."""
    return train_cell(experiment, arm, rate, seed, text, backend, steps)[0]


def train_cell(
    experiment: Experiment, arm: Arm, rate: float, seed: int, text: Text, backend: Backend, steps: int = 0
) -> tuple[dict[str, Any], Trainer]:
    """Train, and return a record that JSON can hold, and what was trained.

    `val_loss` is the loss on the validation split after the last step, in the unit of the experiment; None if the run
    diverged. `curve` are (step, training loss, validation loss); the other lists have a number for each layer.
    """
    config = experiment.config(arm, rate, seed, steps)
    text, scale = text.of(config), 1.0
    if experiment.bits:  # of the training losses, whose batches are not looked at for this
        scale = bits_per_byte(1.0, bytes_per_token(text.validation, text.tokenizer, config.model.ctx, config.batch))
    config = replace(config, model=replace(config.model, vocab_size=text.vocabulary))
    trainer = Trainer(config, config.model, backend, text.training)
    began, every = time.monotonic(), max(1, config.steps // POINTS)
    record: dict[str, Any] = {"arm": arm.name, "rate": rate, "seed": seed, "val_loss": None, "curve": []}
    recent: list[float] = []
    try:
        with np.errstate(all="ignore"):  # a step that is not finite is found by `update`
            for step in range(1, config.steps + 1):
                loss = trainer.backward(step)
                recent.append(loss)
                if step in (1, config.steps):
                    record["gradient_first" if step == 1 else "gradient_last"] = gradient_norms(trainer)
                trainer.update(step, loss)
                if step % every == 0 or step == config.steps:
                    validation = _validation(trainer, text, EVAL_TOKENS, experiment.bits)
                    record["curve"].append((step, scale * float(np.mean(recent)), validation))
                    recent.clear()
            record["val_loss"] = _validation(trainer, text, RESULT_TOKENS, experiment.bits)
            record |= look_inside(trainer, text)
    except StoppedRun:
        record["diverged_at"] = step
    if record["val_loss"] is not None and not math.isfinite(record["val_loss"]):
        record["val_loss"] = None
    return {**record, "seconds": round(time.monotonic() - began, 2)}, trainer


def _validation(trainer: Trainer, text: Text, most: int, bits: bool) -> float:
    """Return the loss over `most` tokens of the validation split, in nats per token or in bits per byte."""
    ctx, batch = trainer.model.config.ctx, trainer.config.batch
    count = max(1, most // (ctx * batch))
    loss = evaluate(trainer.model, text.validation, batch, count)
    assert loss is not None  # nothing stops this evaluation
    if not bits:
        return loss
    return bits_per_byte(loss, bytes_per_token(text.validation, text.tokenizer, ctx, batch, count))


def gradient_norms(trainer: Trainer) -> list[float]:
    """Return the norm of the gradient of all parameters of each layer."""
    squares = [0.0] * trainer.model.config.layers
    for name, gradient in trainer.gradients.items():
        if name.startswith("h."):
            squares[int(name.split(".")[1])] += float(np.square(gradient, dtype=np.float64).sum())
    return [math.sqrt(square) for square in squares]


def look_inside(trainer: Trainer, text: Text) -> dict[str, list[float]]:
    """Return what a validation batch does inside of the model, for each layer.

    `stream` is the root mean square of the stream after each layer; `likeness` the mean cosine between the rows of
    different positions there; `attended` over how many keys the attention of the last positions is spread: the
    exponential of its entropy, in the mean over heads.
    """
    model, ctx = trainer.model, trainer.model.config.ctx
    [(tokens, _)] = evaluation_batches(text.validation, ctx, 1, 1)
    acts = model.buffers(*tokens.shape)
    model.forward(acts, tokens)
    stream = [np.asarray(block.residual_out, np.float64) for block in acts.blocks]
    found = {
        "stream": [float(np.sqrt(np.square(rows).mean())) for rows in stream],
        "likeness": [likeness(rows) for rows in stream],
    }
    maps = np.asarray(model.attention_maps(tokens[0]), np.float64)[:, :, ctx // 2 :]
    entropy = -(maps * np.log(np.maximum(maps, 1e-300))).sum(axis=3)
    return {**found, "attended": np.exp(entropy.mean(axis=(1, 2))).tolist()}


def likeness(rows: Array) -> float:
    """Return the mean cosine between different rows (T,C), each less its mean: 1 if all rows say the same."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-300)
    T = len(rows)
    return float(((unit @ unit.T).sum() - T) / (T * (T - 1))) if T > 1 else 1.0
