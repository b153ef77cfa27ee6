"""What changes during a run, and one optimiser step.

A step is a pure function of (weights, moments, seed, step): batches and dropout masks are looked up by their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from ..config import ModelConfig, TrainConfig
from ..data.corpus import Batches, Tokens, evaluation_batches
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .schedule import learning_rate

Array = NDArray[Any]


class Trainer:
    """Everything that changes during a run: weights, their gradients, and AdamW's two moments."""

    def __init__(
        self, config: TrainConfig, model: ModelConfig, backend: Backend, tokens: Tokens | Array,
        tensors: dict[str, Parameters] | None = None,
    ) -> None:  # fmt: skip
        """Begins with weights drawn by the seed and moments of 0, or with those of a checkpoint."""
        self.config, self.backend = config, backend
        self.tensors = tensors or {
            "weights": Parameters.initial(model, config.seed), "first": Parameters(model), "second": Parameters(model),
        }  # fmt: skip
        self.weights, self.first, self.second = (self.tensors[name] for name in ("weights", "first", "second"))
        self.gradients = Parameters(model)
        self.model = GPT(model, backend, self.weights, recompute=config.recompute)
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

    def norm(self) -> float:
        """The length of the whole gradient."""
        return math.sqrt(self.backend.squared_norm(self.gradients.flat))

    def update(self, step: int, loss: float, norm: float | None = None) -> tuple[float, float]:
        """Clip the gradient and take AdamW's step; returns (norm before clipping, learning rate).

        Raises StoppedRun, with the weights as they were, if loss or gradient are not finite.
        """
        config = self.config
        norm = self.norm() if norm is None else norm
        wrong = not_finite(loss, norm)
        if wrong:
            raise StoppedRun(f"Stopped at step {step}: {wrong}; a smaller --lr may help.")
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


def not_finite(loss: float, norm: float) -> str:
    """Which of the two is a NaN or an infinity, in words; empty if none is."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return "" if math.isfinite(norm) else f"the gradient's norm is {norm}"


def evaluate(
    model: GPT, tokens: Tokens | Array, batch: int, batches: int = 0, stop: Callable[[], bool] = lambda: False
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
