"""AdamW and the norm of the gradients: one pass over the flat buffers, a fixed block of elements to a thread."""

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
from ._simd.views import row_of

BLOCK = 4096  # elements; fixed, so that the fold of the norm does not depend on the number of threads


@implements(contract.squared_norm)
def squared_norm(gradients: Array) -> float:
    # (P,) -> scalar
    blocks = -(-gradients.size // BLOCK)
    return float(_squared_norm(gradients, scratch("squares", blocks, np.dtype(np.float64)), blocks))


@implements(contract.adamw)
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), (P,), in place
    # sqrt(v/(1 - beta2^step)) + eps is sqrt(v) + eps sqrt(1 - beta2^step), divided by that root, which the learning
    # rate takes in. What can be worked out once is, and in float64.
    root = math.sqrt(1.0 - beta2**step)
    _adamw(
        parameters, gradients, first_moment, second_moment, decayed, gradient_scale, beta1, 1.0 - beta1,
        beta2, 1.0 - beta2, eps * root, learning_rate * root / (1.0 - beta1**step), learning_rate * weight_decay,
    )  # fmt: skip


@kernel()
def _squared_norm(gradients, sums, blocks):
    size = gradients.size
    for block in numba.prange(blocks):
        sums[block] = sum_of_squares(row_of(gradients, block * BLOCK, min(BLOCK, size - block * BLOCK)))
    total = 0.0
    for block in range(blocks):
        total += sums[block]
    return total


@kernel()
def _adamw(
    parameters, gradients, first_moment, second_moment, decayed, gradient_scale, beta1, new1, beta2, new2, eps, rate,
    decay,
):  # fmt: skip
    size = parameters.size
    real = parameters.dtype.type
    for block in numba.prange((size + BLOCK - 1) // BLOCK):
        start, end = block * BLOCK, min(size, (block + 1) * BLOCK)
        border = min(max(decayed, start), end)  # matrices before it are decayed, vectors behind it are not
        factors = Factors(
            real(gradient_scale), real(beta1), real(new1), real(beta2), real(new2), real(eps), real(rate), real(decay)
        )
        adamw_update(
            row_of(parameters, start, border - start), row_of(gradients, start, border - start),
            row_of(first_moment, start, border - start), row_of(second_moment, start, border - start), factors,
        )  # fmt: skip
        factors = Factors(
            real(gradient_scale), real(beta1), real(new1), real(beta2), real(new2), real(eps), real(rate), real(0)
        )
        adamw_update(
            row_of(parameters, border, end - border), row_of(gradients, border, end - border),
            row_of(first_moment, border, end - border), row_of(second_moment, border, end - border), factors,
        )  # fmt: skip
