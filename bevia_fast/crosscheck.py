"""Both backends on the same weights and batch, while a model is trained.

For single kernels the limits stand in `tolerances`, for a whole model here: rounding passes through every layer and
back, and is enlarged on the way, by how much depends on the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .comparison import Comparison, difference
from .config import ModelConfig
from .errors import StoppedRun
from .kernels import Backend
from .model import GPT, DropoutStream
from .parameters import Parameters
from .tolerances import TINY, largest

Array = NDArray[Any]

# Of a model's loss and gradients, relative to the largest element of the tensor. Four layers differ by 2e-6 and 2e-15;
# the rest is room for deeper models and larger weights. A kernel that is wrong by one term of a sum is far above it.
GRADIENT_TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
# ReLU's derivative jumps at 0: where two backends round a preactivation to different sides, a term of a sum is there
# or not. In float64 this does not happen in practice.
RELU_TOLERANCE = {"float32": 1e-2, "float64": 1e-10}
# A tensor whose gradient is far below the others' consists of what is left after cancellation; its rounding comes from
# larger numbers. It is held against this share of the largest gradient.
SMALLEST_SCALE = 1e-3


def gradient_tolerance(config: ModelConfig) -> float:
    """How far loss and gradients of the same weights and batch may lie apart, relative to a tensor's largest."""
    return (RELU_TOLERANCE if config.activation == "relu" else GRADIENT_TOLERANCE)[config.dtype]


def compare_gradients(a: Parameters, b: Parameters) -> list[Comparison]:
    """Each tensor of `a` held against the reference `b`. NaN or infinity sets no scale, and so is seen."""
    tolerance = gradient_tolerance(a.config)
    smallest = max(SMALLEST_SCALE * max(largest(view) for view in b.values()), TINY)
    return [
        difference(name, a[name], view, tolerance, max(largest(view), smallest)) for name, view in b.items()
    ]


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
        tolerance = gradient_tolerance(self.model.config)
        found = [difference("loss", np.array([loss]), np.array([other]), tolerance)]
        found += compare_gradients(gradients, self.gradients)
        worst = max(found, key=lambda comparison: comparison.error)
        if not worst.ok:
            where = worst.tensor if worst.tensor == "loss" else f"the gradient of {worst.tensor}{list(worst.index)}"
            raise StoppedRun(
                f"Stopped at step {step}: {where} is {worst.value_a:.9g}, and {worst.value_b:.9g} with the "
                f"{self.model.backend.name} backend; they differ by {worst.error:.2g} relative to the largest, "
                f"{worst.tolerance:.2g} is allowed."
            )
        return worst
