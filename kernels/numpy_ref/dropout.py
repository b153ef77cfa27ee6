"""Dropout (Srivastava et al. 2014): in training each number is set to 0 with probability `rate`, and the others are
scaled up by 1/(1 - rate), so that the expectation stays what it is without dropout.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from .. import contract
from ..contract import Array, implements
from ..rng import GOLDEN32, GOLDEN64, MIX32_A, MIX32_B, keep_threshold, mix64


def dropout_mask(key: int, rows: int, columns: int, rate: float) -> Array:
    """The mask of stream `key`, bool (rows, columns): True is kept, with probability 1 - rate.

    Each element is a hash of (key, row, column) and of nothing else: no state, no order, nothing to store. A row's
    64-bit hash gives two 32-bit numbers, the start and the middle of a 32-bit hash of the column.
    """
    # (rows,): arithmetic on unsigned integers wraps around, modulo 2^64 and modulo 2^32
    counter = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(GOLDEN64) + np.uint64(key)
    z: Array = cast(Any, mix64)(counter)  # written for one integer; its operators do as well for an array of them
    low = (z & np.uint64(0xFFFFFFFF)).astype(np.uint32)[:, None]
    high = (z >> np.uint64(32)).astype(np.uint32)[:, None]

    # (rows, columns)
    h = np.arange(columns, dtype=np.uint32) * np.uint32(GOLDEN32) + low
    h ^= h >> np.uint32(16)
    h *= np.uint32(MIX32_A)
    h ^= h >> np.uint32(15)
    h += high
    h *= np.uint32(MIX32_B)
    h ^= h >> np.uint32(15)
    mask: Array = h >= keep_threshold(rate)
    return mask


@implements(contract.dropout_forward)
def dropout_forward(out: Array, inp: Array, rate: float, key: int, *, residual: Array | None = None) -> None:
    # (N,C), (N,C) -> (N,C)
    N, C = inp.shape
    result = inp * dropout_mask(key, N, C, rate) * (1 / (1 - rate))
    if residual is not None:
        result = result + residual
    out[...] = result


@implements(contract.dropout_backward)
def dropout_backward(dinp: Array, dout: Array, rate: float, key: int) -> None:
    # (N,C) -> (N,C)
    N, C = dout.shape
    # forward: out = inp * mask / (1 - rate)
    dinp[...] = dout * dropout_mask(key, N, C, rate) * (1 / (1 - rate))
