"""One optimizer step: gradient of a batch, clipping, and the update by AdamW or Muon.

A step is a pure function of (weights, moments, seed, step), because batches and dropout masks are drawn by their number
and not from a generator with a state. So a resumed run repeats the bits of one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ..agreement.crosscheck import State
from ..config import ModelConfig, TrainConfig
from ..data.corpus import ORDER, Tokens
from ..data.staged import StagedBatches
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.optimizer import Optimizer, Rates, second_moment
from ..model.parameters import Parameters
from ..naming import option
from ..stages import stages
from .schedule import learning_rate

Array = NDArray[Any]


class Trainer:
    """All state that a step changes: the weights, their gradients, and the optimizer's moments."""

    def __init__(
        self, config: TrainConfig, model: ModelConfig, backend: Backend, tokens: Tokens | Array,
        tensors: dict[str, Parameters] | None = None, order: int = ORDER,
    ) -> None:  # fmt: skip
        """Start with new weights and moments of 0, or with `tensors`: the weights and moments of a checkpoint.

        `order` is the version of the order of batches; see `data.corpus`.
        """
        self.config, self.backend = config, backend
        self.tensors = tensors or {
            "weights": Parameters.initial(model, config.seed), "first": Parameters(model),
            "second": second_moment(config.optimizer, model),
        }  # fmt: skip
        self.weights, self.first, self.second = (self.tensors[name] for name in ("weights", "first", "second"))
        self.optimizer, self.rates = Optimizer(config.optimizer, self.first, self.second), Rates.of(config)
        self.gradients = Parameters(model)
        self.model = GPT(model, backend, self.weights, recompute=config.recompute)
        self.batches = StagedBatches(
            tokens, stages(config.ctx_schedule, model.ctx, config.batch), config.accumulate, config.seed, order
        )

    def microbatches(self, step: int) -> Iterator[tuple[Array, Array, DropoutStream]]:
        """Yield (tokens, targets, dropout) for each of the --accumulate batches of step `step`, counted from 1."""
        for index in range((step - 1) * self.config.accumulate, step * self.config.accumulate):
            yield *self.batches[index], DropoutStream(self.config.seed, index)

    def backward(self, step: int) -> float:
        """Compute the gradient of a step's mean loss into `gradients`, which must be 0 before; return the loss."""
        scale, losses = 1.0 / self.config.accumulate, 0.0
        for tokens, targets, dropout in self.microbatches(step):
            losses += self.model.loss_and_gradients(tokens, targets, self.gradients, scale=scale, dropout=dropout)
        return losses * scale

    def norm(self) -> float:
        """Return the global norm of the gradient."""
        return math.sqrt(self.backend.squared_norm(self.gradients.flat))

    def update(self, step: int, loss: float, norm: float | None = None) -> tuple[float, float]:
        """Clip the gradient, update the weights, and set the gradient to 0.

        `loss` is the result of `backward`, `norm` that of `norm`, if it is already known. Returns the norm before
        clipping and the learning rate. Raises StoppedRun, before anything changes, if loss or norm is not finite.
        """
        norm = self.norm() if norm is None else norm
        wrong = not_finite(loss, norm)
        if wrong:
            raise StoppedRun(f"Stopped at step {step}: {wrong}; a smaller {option('lr')} may help.")
        return norm, self.apply(self.backend, self.state, step, norm)

    @property
    def state(self) -> State:
        """What an update changes: weights, gradients, and the optimizer's moments."""
        return self.weights, self.gradients, self.optimizer

    def apply(self, backend: Backend, state: State, step: int, norm: float) -> float:
        """Update the weights of `state`, whose gradients have this norm; return the learning rate."""
        config, (weights, gradients, optimizer) = self.config, state
        rate = learning_rate(step, steps=config.steps, lr=config.lr, min_lr=config.min_lr, warmup=config.warmup)
        clipped = config.grad_clip > 0.0 and norm > config.grad_clip
        optimizer.update(
            backend, weights, gradients, self.rates, step=step, learning_rate=rate,
            muon_rate=config.muon_lr * rate / config.lr, gradient_scale=config.grad_clip / norm if clipped else 1.0,
        )  # fmt: skip
        return rate


def not_finite(loss: float, norm: float) -> str:
    """Say which of the two is NaN or infinite; return an empty string if neither is."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    return "" if math.isfinite(norm) else f"the gradient's norm is {norm}"
