"""What a run is judged by: the loss on text that it does not train on, and samples of what it writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..config import GenerateConfig
from ..data.corpus import Tokens, evaluation_batches
from ..data.vocabulary import Vocabulary
from ..model.gpt import GPT
from ..model.writing import stream
from ..runs.trained import Run

SAMPLE_LENGTH = 160  # tokens


def evaluate(
    model: GPT, tokens: Tokens | NDArray[Any], batch: int, batches: int = 0, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over a split, in nats per token; None if `stop` returns True on the way.

    Covers all targets, or those of `batches` batches spread over the split. Each token is predicted from the tokens
    before it in its window of ctx.
    """
    total, count = 0.0, 0
    for inputs, targets in evaluation_batches(tokens, model.config.ctx, batch, batches):
        if stop():
            return None
        total += model.loss(inputs, targets) * targets.size
        count += targets.size
    return total / count


def bytes_per_token(
    tokens: Tokens | NDArray[Any], vocabulary: Vocabulary, ctx: int, batch: int, batches: int = 0
) -> float:
    """Return how many bytes of UTF-8 a target of `evaluate` stands for, in the mean over all targets that it covers."""
    total, count = 0, 0
    for _, targets in evaluation_batches(tokens, ctx, batch, batches):
        total += int(vocabulary.byte_lengths[targets].sum())
        count += targets.size
    return total / max(count, 1)


def bits_per_byte(loss: float, bytes_per_token: float) -> float:
    """Return a loss in nats per token as bits per byte of UTF-8, in which models with different tokens compare.

    It is how many bits a byte of the text would take if it were compressed with the model's probabilities.
    """
    return loss / (math.log(2) * bytes_per_token)


def short_sample(run: Run, seed: int, length: int = SAMPLE_LENGTH) -> str:
    """Return text that the model writes without a prompt, at temperature 0.8."""
    return "".join(stream(run.model, run.tokenizer, GenerateConfig(run="", length=length, seed=seed)))
