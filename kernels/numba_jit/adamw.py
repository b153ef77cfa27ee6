"""AdamW, and the norm of the gradients: one pass over the flat buffers. The threads share blocks of elements."""

from __future__ import annotations

import math

import numba
import numpy as np

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import kernel
from ._runtime.scratch import scratch
from ._simd.adamw_update import Factors, adamw_update
from ._simd.reductions import sum_of_squares
from ._simd.views import whole

BLOCK = 4096  # elements; the norm adds the blocks in their order, so no number of threads changes a bit


@implements(contract.squared_norm)
def squared_norm(gradients: Array) -> float:
    # (P,) -> a number, in float64
    blocks = -(-gradients.size // BLOCK)
    return float(_squared_norm(gradients, scratch("squares", blocks, np.dtype(np.float64)), blocks))


@implements(contract.adamw)
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), (P,), all updated in place
    # With root = sqrt(1 - beta2^step), the bias correction of the second moment, sqrt(v) becomes sqrt(v) / root. Both
    # corrections then leave the loop over the elements:
    # m/(1 - beta1^step) / (sqrt(v)/root + eps) = root/(1 - beta1^step) * m / (sqrt(v) + eps * root)
    root = math.sqrt(1 - beta2**step)
    rate = learning_rate * root / (1 - beta1**step)
    factors = Factors(gradient_scale, beta1, 1 - beta1, beta2, 1 - beta2, eps * root, rate)
    _adamw(parameters, gradients, first_moment, second_moment, tuple(factors), learning_rate * weight_decay, decayed)


@kernel()
def _squared_norm(gradients, squares, blocks):
    for block in numba.prange(blocks):
        squares[block] = sum_of_squares(whole(gradients)[block * BLOCK : (block + 1) * BLOCK])
    total = 0.0
    for block in range(blocks):
        total += squares[block]
    return total


@kernel()
def _adamw(parameters, gradients, first_moment, second_moment, factors, decay, decayed):
    P = parameters.size
    for block in numba.prange((P + BLOCK - 1) // BLOCK):
        first, last = block * BLOCK, min((block + 1) * BLOCK, P)
        border = min(max(first, decayed), last)
        for part, part_decay in ((slice(first, border), decay), (slice(border, last), 0.0)):
            # g = gradients * gradient_scale;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
            # w = w - (rate * m / (sqrt(v) + eps) + decay * w);  gradients = 0
            adamw_update(
                whole(parameters)[part], whole(gradients)[part], whole(first_moment)[part], whole(second_moment)[part],
                factors, part_decay,
            )  # fmt: skip
