"""Dropout with masks that are never stored: each element is a hash of (key, row, column), computed when needed."""

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
from ._simd.views import whole
from .linear import absent

MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
GOLDEN = np.uint64(GOLDEN64)


class Rate(NamedTuple):
    """A dropout rate as a kernel needs it. The key of the mask is an argument of its own, because each pass has
    another one."""

    use: bool
    threshold: np.uint64  # the random bits of an element that is kept are at least this
    scale: float  # of the elements that are kept: 1 / (1 - rate)


class Dropout(NamedTuple):
    """The dropout of one call: a key and the fields of `Rate`."""

    key: np.uint64
    use: bool
    threshold: np.uint64
    scale: float


@functools.lru_cache(256)
def rate_of(rate: float) -> Rate:
    return Rate(rate > 0.0, np.uint64(keep_threshold(rate)), 1.0 / (1.0 - rate))


@device
def row_hash(key, row):
    """The 64 random bits that a row's elements share: mix64(key + GOLDEN64 * (row + 1)), as in `kernels.rng`."""
    x = key + GOLDEN * (np.uint64(row) + np.uint64(1))
    x = (x ^ (x >> np.uint64(30))) * MIX_1
    x = (x ^ (x >> np.uint64(27))) * MIX_2
    return x ^ (x >> np.uint64(31))


@implements(contract.dropout_forward)
def dropout_forward(out: Array, inp: Array, rate: float, key: int, *, residual: Array | None = None) -> None:
    # (N,C), (N,C) -> (N,C)
    _drop(out, inp, absent(inp.dtype, 2) if residual is None else residual, np.uint64(key), tuple(rate_of(rate)))


@implements(contract.dropout_backward)
def dropout_backward(dinp: Array, dout: Array, rate: float, key: int) -> None:
    # (N,C) -> (N,C), with the mask of the forward pass
    _drop(dinp, dout, absent(dout.dtype, 2), np.uint64(key), tuple(rate_of(rate)))


@kernel()
def _drop(out, inp, residual, key, rate):
    rate = Rate(*rate)
    for n in numba.prange(len(inp)):
        # out = inp * mask / (1 - rate) + residual
        drop(whole(out)[n], whole(inp)[n], whole(residual)[n], row_hash(key, n), 0, rate.threshold, rate.scale)
