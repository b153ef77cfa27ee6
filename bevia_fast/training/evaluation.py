"""What a run is judged by: the loss on text that it does not train on, and samples of what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..config import GenerateConfig
from ..data.corpus import Tokens, evaluation_batches
from ..model.gpt import GPT
from ..model.writing import stream
from ..runs.trained import Run

SAMPLE_LENGTH = 160  # characters


def evaluate(
    model: GPT, tokens: Tokens | NDArray[Any], batch: int, batches: int = 0, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over a split, in nats per character; None if `stop` returns True on the way.

    Covers all targets, or those of `batches` batches spread over the split. Each character is predicted from the
    characters before it in its window of ctx.
    """
    total, count = 0.0, 0
    for inputs, targets in evaluation_batches(tokens, model.config.ctx, batch, batches):
        if stop():
            return None
        total += model.loss(inputs, targets) * targets.size
        count += targets.size
    return total / count


def short_sample(run: Run, seed: int, length: int = SAMPLE_LENGTH) -> str:
    """Return text that the model writes without a prompt, at temperature 0.8."""
    return "".join(stream(run.model, run.tokenizer, GenerateConfig(run="", length=length, seed=seed)))
