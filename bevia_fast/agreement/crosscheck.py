"""Compare both backends on the same weights and batch while a model trains.

The limits for single kernels are in `tolerances`, those for a whole model are here: rounding errors pass through every
layer, forward and backward, and grow on the way by an amount that depends on the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.optimizer import Optimizer
from ..model.parameters import Parameters
from .comparison import Comparison, difference, worst_of
from .tolerances import TINY, largest

Array = NDArray[Any]

# Limits for a model's loss and gradients, relative to the largest element of the tensor. With up to eight layers the
# backends differ by 1e-6 (float32) and 3e-15 (float64), both at the start and during training, and by 1e-5 and 2e-14
# with weights three times as large; the rest is room for larger models. A kernel that gets one term of a sum wrong is
# far above the limit.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
# ReLU's derivative jumps at 0. If two backends round a preactivation to different sides of 0, one of them adds a term
# to the gradient that the other does not. In float32 this happens every few batches of the laptop preset, in float64
# never in practice. One element of a gradient then differs by up to 4e-2 of the largest, but a whole tensor, in a small
# model or a large one, by at most 5e-3 of its norm. The loss hardly changes.
RELU_TOLERANCE = 2e-2  # of the norm
# Numbers that are rounded to bfloat16 may fall to different sides too: one in about ten thousand, by 2^-8 of itself.
# Found, relative to the norm: 0.004 for the presets baby and long, 0.006 for a model of GPT-2's width and depth.
BF16_TOLERANCE = 2e-2  # of the norm
BF16_LOSS_TOLERANCE = 1e-3
# Limits for the weights after an update, relative to the largest change of the tensor. Muon in float32 differs by up to
# 1e-4, most of it at the first steps, whose gradients have the smallest singular values.
UPDATE_TOLERANCE = {"float32": 2e-3, "float64": 4e-12}
# A gradient far smaller than the others is what remains after cancellation, so its rounding errors come from larger
# numbers. The error of a gradient is relative to at least this share of the largest gradient.
SMALLEST_SCALE = 1e-3


def _by_norm(config: ModelConfig) -> bool:
    return (config.activation == "relu" or config.precision == "bf16") and config.dtype == "float32"


def gradient_tolerance(config: ModelConfig) -> float:
    """Return how far gradients of the same weights and batch may differ, relative to a tensor's largest element, or
    for ReLU in float32 to its norm."""
    if config.precision == "bf16":
        return BF16_TOLERANCE
    return RELU_TOLERANCE if _by_norm(config) else TOLERANCE[config.dtype]


def compare_losses(a: float, b: float, config: ModelConfig) -> Comparison:
    """Compare loss `a` with the reference `b`."""
    tolerance = BF16_LOSS_TOLERANCE if config.precision == "bf16" else TOLERANCE[config.dtype]
    return difference("loss", np.array([a]), np.array([b]), tolerance)


def compare_gradients(a: Parameters, b: Parameters) -> list[Comparison]:
    """Compare each tensor of `a` with the reference `b`. NaN and infinity do not enter the scale, so they are found."""
    by_norm, tolerance = _by_norm(a.config), gradient_tolerance(a.config)
    scales = {name: _norm(view) if by_norm else largest(view) for name, view in b.items()}
    smallest = max(SMALLEST_SCALE * max(scales.values()), TINY)
    found = [difference(name, a[name], view, tolerance, max(scales[name], smallest)) for name, view in b.items()]
    if not by_norm:
        return found
    return [
        one if one.error == math.inf
        else replace(one, error=_norm(a[one.tensor] - b[one.tensor]) / max(scales[one.tensor], smallest))
        for one in found
    ]  # fmt: skip


def _norm(array: Array) -> float:
    """Return the root of the sum of squares, ignoring NaNs and infinities."""
    return float(np.linalg.norm(array[np.isfinite(array)]))


def compare_updates(before: Parameters, a: Parameters, b: Parameters) -> list[Comparison]:
    """Compare each tensor of the weights `a` after an update with the reference `b`; `before`, they were the same."""
    dtype = before.config.dtype
    tolerance, rounding = UPDATE_TOLERANCE[dtype], 2 * float(np.finfo(dtype).eps)
    found = []
    for name, view in b.items():
        # the sum of a weight and a small change is rounded as the weight is
        scale = max(largest(view - before[name]) + rounding * largest(view) / tolerance, TINY)
        found.append(difference(name, a[name], view, tolerance, scale))
    return found


State = tuple[Parameters, Parameters, Optimizer]  # weights, gradients, and the moments of their optimizer


def _copy_of(state: State) -> State:
    def copy(one: Parameters) -> Parameters:
        found = Parameters(one.config, hidden=one.has_hidden)
        found.flat[...] = one.flat
        return found

    weights, gradients, optimizer = state
    return copy(weights), copy(gradients), Optimizer(optimizer.name, copy(optimizer.first), copy(optimizer.second))


class LiveCrosscheck:
    """A second model on the same weights that recomputes loss and gradients with another backend.

    `recompute`: use as little memory as a model trained with --recompute does.
    """

    def __init__(self, weights: Parameters, backend: Backend, *, recompute: bool = False) -> None:
        self.model = GPT(weights.config, backend, weights, recompute=recompute)
        self.gradients = Parameters(weights.config)

    def compare(
        self, step: int, loss: float, gradients: Parameters, batches: Iterable[tuple[Array, Array, DropoutStream]]
    ) -> Comparison:
        """Recompute loss and gradients and return the worst difference.

        Raises StoppedRun, naming the tensor, the index and both values, if a difference exceeds its tolerance.
        """
        self.gradients.flat.fill(0)
        todo = list(batches)
        scale = 1.0 / len(todo)
        other = scale * sum(
            self.model.loss_and_gradients(tokens, targets, self.gradients, scale=scale, dropout=dropout)
            for tokens, targets, dropout in todo
        )
        config = self.model.config
        worst = worst_of([compare_losses(loss, other, config), *compare_gradients(gradients, self.gradients)])
        if not worst.ok:
            where = worst.tensor if worst.tensor == "loss" else f"the gradient of {worst.tensor}{list(worst.index)}"
            by_norm = _by_norm(config) and worst.tensor != "loss"
            what, scale_name = ("the tensors", "norm") if by_norm else ("the values", "largest element")
            raise StoppedRun(
                f"Stopped at step {step}: {where} is {worst.value_a:.9g}, but {worst.value_b:.9g} with the "
                f"{self.model.backend.name} backend; {what} differ by {worst.error:.2g} relative to the {scale_name}, "
                f"and at most {worst.tolerance:.2g} is allowed."
            )
        return worst

    def compare_update(
        self, step: int, state: State, backend: Backend, update: Callable[[Backend, State], object]
    ) -> Comparison:
        """Make an update with both backends and return the worst difference. `state` itself stays as it is.

        Raises StoppedRun, naming the tensor, the index and both values, if a difference exceeds its tolerance.
        """
        found = []
        for each in (backend, self.model.backend):
            copy = _copy_of(state)
            update(each, copy)
            found.append(copy[0])
        worst = worst_of(compare_updates(state[0], *found))
        if not worst.ok:
            raise StoppedRun(
                f"Stopped at step {step}: after the update {worst.tensor}{list(worst.index)} is {worst.value_a:.9g}, "
                f"but {worst.value_b:.9g} with the {self.model.backend.name} backend; the values differ by "
                f"{worst.error:.2g} relative to the largest change, and at most {worst.tolerance:.2g} is allowed."
            )
        return worst
