"""Both backends on the same weights and batch, while a model is trained.

For single kernels the limits stand in `tolerances`, for a whole model here: rounding passes through every layer and
back, and is enlarged on the way, by how much depends on the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .comparison import Comparison, difference
from .tolerances import TINY, largest

Array = NDArray[Any]

# Of a model's loss and gradients, relative to the largest element of the tensor. Up to eight layers differ by 1e-6 and
# 3e-15 at first and while they are trained, by 1e-5 and 2e-14 with weights three times as large; the rest is room for
# larger ones. A kernel that is wrong by one term of a sum is far above it.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
# ReLU's derivative jumps at 0. Where two backends round a preactivation to different sides, a term of sums is there
# or not: in float32 that happens in every few batches of the laptop preset, in float64 never in practice. An element
# of a gradient then differs by up to 4e-2 of the largest, but a whole tensor, of a small model or a large one, by up to
# 5e-3 of its norm. The loss hardly changes.
RELU_TOLERANCE = 2e-2  # of the norm
# A tensor whose gradient is far below the others' consists of what is left after cancellation; its rounding comes from
# larger numbers. It is held against this share of the largest gradient.
SMALLEST_SCALE = 1e-3


def _by_norm(config: ModelConfig) -> bool:
    return config.activation == "relu" and config.dtype == "float32"


def gradient_tolerance(config: ModelConfig) -> float:
    """How far gradients of the same weights and batch may lie apart, relative to a tensor's largest element; or to its
    norm, for ReLU in float32."""
    return RELU_TOLERANCE if _by_norm(config) else TOLERANCE[config.dtype]


def compare_losses(a: float, b: float, config: ModelConfig) -> Comparison:
    """`a` held against the reference `b`."""
    return difference("loss", np.array([a]), np.array([b]), TOLERANCE[config.dtype])


def compare_gradients(a: Parameters, b: Parameters) -> list[Comparison]:
    """Each tensor of `a` held against the reference `b`. NaN or infinity sets no scale, and so is seen."""
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
    """The root of the sum of squares, NaNs and infinities left out."""
    return float(np.linalg.norm(array[np.isfinite(array)]))


def worst_of(comparisons: Iterable[Comparison]) -> Comparison:
    """The one that is nearest to its tolerance, or furthest beyond."""
    return max(comparisons, key=lambda comparison: comparison.error / comparison.tolerance)


class LiveCrosscheck:
    """A second model on the same weights, computed by another backend, in as little memory if `recompute`."""

    def __init__(self, weights: Parameters, backend: Backend, *, recompute: bool = False) -> None:
        self.model = GPT(weights.config, backend, weights, recompute=recompute)
        self.gradients = Parameters(weights.config)

    def compare(
        self, step: int, loss: float, gradients: Parameters, batches: Iterable[tuple[Array, Array, DropoutStream]]
    ) -> Comparison:
        """Compute loss and gradients again and return the worst difference.

        Raises StoppedRun, naming tensor, index and both values, if one is above its tolerance.
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
            what = ("the tensors", "norm") if _by_norm(config) and worst.tensor != "loss" else ("they", "largest")
            raise StoppedRun(
                f"Stopped at step {step}: {where} is {worst.value_a:.9g}, and {worst.value_b:.9g} with the "
                f"{self.model.backend.name} backend; {what[0]} differ by {worst.error:.2g} relative to the {what[1]}, "
                f"{worst.tolerance:.2g} is allowed."
            )
        return worst
