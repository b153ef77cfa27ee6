"""The angles of rotary positions (Su et al. 2021, RoFormer, arXiv:2104.09864, section 3.2.2), as tables of cosines and
sines for the kernels; `kernels/numpy_ref/rotary.py` says what they are for.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.memory import aligned_empty, outline

Array = NDArray[Any]
Tables = tuple[Array, Array]  # cosines (T, H), sines (T, H)

BASE = 10_000.0  # of the paper and of GPT-NeoX: pair i of H turns by BASE^(-i/H) radians per position


def tables(config: ModelConfig, first: int, count: int) -> Tables:
    """Return the cosines and sines (count, H) of the positions from `first` on, in the model's dtype.

    The angles are float64: a float32 would be off by 0.03 radians at position 1,000,000.
    """
    H = config.head_size // 2
    angles = np.arange(first, first + count, dtype=np.float64)[:, None] * BASE ** (-np.arange(H) / H)
    cosines, sines = (aligned_empty((count, H), config.dtype) for _ in range(2))
    cosines[...], sines[...] = np.cos(angles), np.sin(angles)
    return cosines, sines


@functools.lru_cache(8)
def context_tables(config: ModelConfig, T: int) -> Tables:
    """Return the tables of the first T positions, which must not be changed: all passes share them."""
    found = tables(config, 0, T)
    for each in found:
        each.flags.writeable = False
    return found


def tables_for(config: ModelConfig, T: int, rows: Array) -> Tables:
    """Return the tables of the first T positions, or outlines of them if `rows`, an array of the pass, is an outline:
    planning asks about contexts of millions."""
    if not rows.flags.writeable:
        shape = (T, config.head_size // 2)
        return outline(shape, config.dtype), outline(shape, config.dtype)
    return context_tables(config, T)
