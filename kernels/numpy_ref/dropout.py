"""Dropout (Srivastava et al. 2014): during training each number is set to 0 with probability `rate`. The others are
scaled by 1/(1 - rate), so that the expectation stays the same.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from .. import contract
from ..contract import Array, implements
from ..rng import GOLDEN32, GOLDEN64, MIX32_A, MIX32_B, keep_threshold, mix64


def dropout_mask(key: int, rows: int, columns: int, rate: float) -> Array:
    """The mask of stream `key`, bool (rows, columns): True, with probability 1 - rate, where an element is kept.

    Each element is a hash of (key, row, column) alone, so there is no state, no order and nothing to store. A 64-bit
    hash of the row gives two 32-bit numbers, which enter a 32-bit hash of the column at its start and in its middle.
    Raises ValueError if the rate is not in [0, 1).
    """
    # (rows,); unsigned integers wrap around, modulo 2^64 here and modulo 2^32 below
    counter = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(GOLDEN64) + np.uint64(key)
    z: Array = cast(Any, mix64)(counter)  # declared for one integer; its operators work on arrays too
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
