"""Training: the state of a run, one optimiser step, and the loop around it.

A step is a pure function of (weights, moments, seed, step): batches and dropout masks are looked up by their number.
The module has not the name of the function, for `bevia_fast.train` can be only one of them.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import files
from .capacity import refuse_too_large, training_bytes
from .checkpoint import save_model
from .config import BackendName, GenerateConfig, ModelConfig, TrainConfig
from .corpus import Batches, Corpus, evaluation_batches, read_text
from .crosscheck import LiveCrosscheck
from .errors import StoppedRun
from .kernels import Backend
from .model import GPT, DropoutStream
from .parameters import Parameters
from .run import Run, describe_backend, open_backend
from .sample import stream
from .schedule import learning_rate
from .tokenizer import Tokenizer

Array = NDArray[Any]
Record = dict[str, Any]  # a line of metrics.jsonl

SAMPLE_LENGTH, FINAL_SAMPLE_LENGTH = 160, 500  # characters


class Reporter:
    """What is told about a run while it goes on. This one keeps silent; see `console.ConsoleReporter`."""

    def start(self, config: TrainConfig) -> None:
        """All input is good."""

    def fact(self, name: str, value: str) -> None:
        """Something to know about the run."""

    def busy(self, what: str) -> contextlib.AbstractContextManager[object]:
        """Something takes a while."""
        return contextlib.nullcontext()

    def step(self, record: Record) -> None:
        """A step is done; step 0 is the evaluation before the first."""

    def sample(self, step: int, text: str) -> None:
        """What the model writes after `step`."""

    def interrupted(self) -> None:
        """Ctrl-C was pressed; the step in hand is being finished."""

    def end(self, run: Run | None) -> None:
        """The run is over; None if it failed."""


class Trainer:
    """Everything that changes during a run: weights, their gradients, and AdamW's two moments."""

    def __init__(self, config: TrainConfig, model: ModelConfig, backend: Backend, tokens: Array) -> None:
        self.config, self.backend = config, backend
        self.weights = Parameters.initial(model, config.seed)
        self.gradients, self.first, self.second = Parameters(model), Parameters(model), Parameters(model)
        self.model = GPT(model, backend, self.weights)
        self.batches = Batches(tokens, model.ctx, config.batch, config.seed)

    def microbatches(self, step: int) -> Iterator[tuple[Array, Array, DropoutStream]]:
        """Tokens, targets and dropout of each batch whose gradients step `step`, counted from 1, adds up."""
        for index in range((step - 1) * self.config.accumulate, step * self.config.accumulate):
            yield *self.batches[index], DropoutStream(self.config.seed, index)

    def backward(self, step: int) -> float:
        """The mean loss of the step's batches; its gradient is in `gradients` afterwards, which were 0 before."""
        scale, losses = 1.0 / self.config.accumulate, 0.0
        for tokens, targets, dropout in self.microbatches(step):
            losses += self.model.loss_and_gradients(tokens, targets, self.gradients, scale=scale, dropout=dropout)
        return losses * scale

    def update(self, step: int, loss: float) -> tuple[float, float]:
        """Clip the gradient and take AdamW's step; returns (norm before clipping, learning rate).

        Raises StoppedRun, with the weights as they were, if loss or gradient are not finite.
        """
        config = self.config
        norm = math.sqrt(self.backend.squared_norm(self.gradients.flat))
        if not math.isfinite(loss) or not math.isfinite(norm):
            which = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
            raise StoppedRun(f"Stopped at step {step}: {which}; a smaller --lr may help.")
        rate = learning_rate(
            step, steps=config.steps, lr=config.lr, min_lr=config.min_lr, warmup=config.warmup
        )
        clipped = config.grad_clip > 0.0 and norm > config.grad_clip
        self.backend.adamw(
            self.weights.flat, self.gradients.flat, self.first.flat, self.second.flat,
            step=step, decayed=self.weights.decayed, learning_rate=rate, beta1=config.beta1, beta2=config.beta2,
            eps=config.eps, weight_decay=config.weight_decay,
            gradient_scale=config.grad_clip / norm if clipped else 1.0,
        )  # fmt: skip
        return norm, rate


def evaluate(
    model: GPT, tokens: Array, batch: int, batches: int = 0, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Mean loss, in nats a character, over all targets of a split, or over `batches` batches spread over it.

    Each character is predicted from those before it in its window of ctx. None if `stop` says so on the way.
    """
    total, count = 0.0, 0
    for inputs, targets in evaluation_batches(tokens, model.config.ctx, batch, batches):
        if stop():
            return None
        total += model.loss(inputs, targets) * targets.size
        count += targets.size
    return total / count


def warm_up(config: ModelConfig, backend: Backend) -> None:
    """Call every kernel that training needs once, on a small model, so that compiled ones are ready."""
    small = replace(config, layers=1, ctx=min(config.ctx, 8))
    trainer = Trainer(TrainConfig(batch=1, steps=1), small, backend, np.zeros(2 * small.ctx, np.int32))
    trainer.update(1, trainer.backward(1))
    trainer.model.loss(*trainer.batches[0])
    next(stream(trainer.model, Tokenizer(_placeholder(config.vocab_size)), GenerateConfig(run="", length=1)))


def _placeholder(size: int) -> str:
    """Some alphabet of this size."""
    return "".join(map(chr, range(size)))


@contextlib.contextmanager
def finish_on_interrupt(told: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C only makes the given function true; a second one interrupts as usual."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield requested.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()
        told()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def train(config: TrainConfig | None = None, reporter: Reporter | None = None) -> Run:
    """Train a model on text and write the results into a run folder.

        run = train(TrainConfig(data=["shakespeare.txt"], steps=200))
        print(generate(run, prompt="The "))

    Raises UserError, before anything is written, for options or a text that cannot work; StoppedRun if the numbers go
    wrong on the way. Ctrl-C ends the run after the step in hand, as a whole one: `run.interrupted` is then set.
    """
    config, reporter = config or TrainConfig(), reporter or Reporter()
    folder = files.RunFolder(config.out)
    corpus = Corpus(read_text(config.data))
    corpus.check_length(config.model.ctx)
    model_config = replace(config.model, vocab_size=len(corpus.tokenizer))
    config = replace(config, model=model_config)
    other: BackendName = "numpy" if config.backend == "numba" else "numba"
    used = (config.backend, other) if config.crosscheck_every else (config.backend,)
    refuse_too_large(training_bytes(model_config, config.batch, used), "Training this model")
    backend = open_backend(config.backend, config.threads)
    trainer = Trainer(config, model_config, backend, corpus.training)
    crosscheck = None
    if config.crosscheck_every:
        crosscheck = LiveCrosscheck(trainer.weights, open_backend(other, config.threads))
    backends = [backend] if crosscheck is None else [backend, crosscheck.model.backend]

    reporter.start(config)
    ended = None
    try:
        facts = {"text": _describe_text(corpus), "model": _describe_model(trainer.weights)}
        for name, value in facts.items():
            reporter.fact(name, value)
        with reporter.busy("Compiling kernels") if "numba" in used else contextlib.nullcontext():
            for each in backends:
                warm_up(model_config, each)
        facts["kernels"] = describe_backend(backend)
        path = folder.create({"format_version": 1, **asdict(config), "facts": facts})
        reporter.fact("kernels", facts["kernels"])
        reporter.fact("folder", str(path))
        run = Run(path, trainer.model, corpus.tokenizer)
        with finish_on_interrupt(reporter.interrupted) as stop:
            _loop(config, trainer, crosscheck, corpus.validation, run, folder, reporter, stop)
        ended = run
    finally:
        folder.close()
        reporter.end(ended)
    return run


def _loop(
    config: TrainConfig, trainer: Trainer, crosscheck: LiveCrosscheck | None, validation: Array, run: Run,
    folder: files.RunFolder, reporter: Reporter, stop: Callable[[], bool],
) -> None:  # fmt: skip
    """All steps, with what is to be logged, saved and shown between them."""
    done = 0

    def validate_and_save() -> float | None:
        save_model(run.folder / files.MODEL, trainer.weights, run.tokenizer, done)
        return evaluate(trainer.model, validation, config.batch, config.eval_batches, stop)

    record: Record = {"step": 0, "loss": None, "val_loss": validate_and_save(), "lr": 0.0, "grad_norm": None,
                      "tokens_per_s": None}  # fmt: skip
    folder.log(record)
    reporter.step(record)
    if config.sample_every:
        reporter.sample(0, short_sample(run, config.seed))
    try:
        while done < config.steps and not stop():
            step, started = done + 1, time.perf_counter()
            loss = trainer.backward(step)
            checked: Record = {}
            if crosscheck is not None and step % config.crosscheck_every == 0:
                paused = time.perf_counter()
                found = crosscheck.compare(step, loss, trainer.gradients, trainer.microbatches(step))
                checked = {"crosscheck": found.error, "crosscheck_tensor": found.tensor}
                started += time.perf_counter() - paused
            norm, rate = trainer.update(step, loss)
            done = step
            speed = config.accumulate * config.batch * config.model.ctx / (time.perf_counter() - started)
            record = {"step": step, "loss": loss, "val_loss": None, "lr": rate, "grad_norm": norm,
                      "tokens_per_s": speed, **checked}  # fmt: skip
            if step % config.eval_every == 0 or step == config.steps:
                record["val_loss"] = validate_and_save()
            folder.log(record)
            reporter.step(record)
            if config.sample_every and step % config.sample_every == 0 and step < config.steps and not stop():
                reporter.sample(step, short_sample(run, config.seed))
    except StoppedRun:
        _draw(run)
        raise
    run.interrupted = stop()
    save_model(run.folder / files.MODEL, trainer.weights, run.tokenizer, done)
    _draw(run)
    text = short_sample(run, config.seed, FINAL_SAMPLE_LENGTH)
    files.write_atomically(run.folder / files.SAMPLE, (text + "\n").encode("utf-8", "replace"))
    reporter.sample(done, text)


def short_sample(run: Run, seed: int, length: int = SAMPLE_LENGTH) -> str:
    """What the model writes by itself, at temperature 0.8."""
    return "".join(stream(run.model, run.tokenizer, GenerateConfig(run="", length=length, seed=seed)))


def _draw(run: Run) -> None:
    from .plots import draw_losses, png

    files.write_atomically(run.folder / files.LOSS, png(draw_losses(run.history)))


def _describe_text(corpus: Corpus) -> str:
    training, validation = len(corpus.training), len(corpus.validation)
    return (
        f"{training + validation:,} characters, {len(corpus.tokenizer)} distinct; "
        f"{training:,} to learn from, {validation:,} to validate on"
    )


def _describe_model(weights: Parameters) -> str:
    c = weights.config
    return (
        f"{weights.count:,} parameters: {c.layers} layers of {c.dim} channels and {c.heads} heads, context {c.ctx}, "
        f"{c.dtype}"
    )
