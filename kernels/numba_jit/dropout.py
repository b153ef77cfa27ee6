"""Dropout with masks that are never stored: each is a hash of (key, row, column), made again when needed."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numba
import numpy as np

from .. import contract
from ..contract import Array, implements
from ..rng import GOLDEN64, keep_threshold
from ._runtime.jit import device, kernel
from ._simd.elementwise import drop
from ._simd.views import row_of

MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
GOLDEN = np.uint64(GOLDEN64)


@implements(contract.dropout_forward)
def dropout_forward(out: Array, inp: Array, rate: float, key: int, *, residual: Array | None = None) -> None:
    # (N,C) -> (N,C)
    _apply(out, inp, np.uint64(key), *mask_numbers(rate), inp if residual is None else residual, residual is not None)


@implements(contract.dropout_backward)
def dropout_backward(dinp: Array, dout: Array, rate: float, key: int) -> None:
    # (N,C) -> (N,C): the same factors as in the forward pass
    _apply(dinp, dout, np.uint64(key), *mask_numbers(rate), dout, False)


@functools.lru_cache(256)
def mask_numbers(rate: float) -> tuple[np.uint64, float]:
    """What a kernel needs to know of the rate: the threshold of the random bits, and 1/(1 - rate)."""
    return np.uint64(keep_threshold(rate)), 1.0 / (1.0 - rate)


class Dropout(NamedTuple):
    """What a kernel knows of a mask that it multiplies with."""

    key: np.uint64
    use: bool
    threshold: np.uint64
    scale: float


class Rate(NamedTuple):
    """That without the key, which must stand by itself among a kernel's arguments: each pass has another one."""

    use: bool
    threshold: np.uint64
    scale: float


@functools.lru_cache(256)
def rate_of(rate: float) -> Rate:
    return Rate(rate > 0.0, *mask_numbers(rate))


@device
def row_hash(key, row):
    """The 64 random bits that a row's elements share: mix64(key + GOLDEN64 * (row + 1)), see `kernels.rng`."""
    x = key + GOLDEN * (np.uint64(row) + np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    return x ^ (x >> np.uint64(31))


@kernel()
def _apply(out, inp, key, threshold, scale, residual, use_residual):
    N, C = inp.shape
    for n in numba.prange(N):
        drop(
            row_of(out, n * C, C), row_of(inp, n * C, C), row_of(residual, n * C, C if use_residual else 0),
            row_hash(key, n), 0, threshold, scale,
        )  # fmt: skip
