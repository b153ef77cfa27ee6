"""Arrays that start at a cache line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE = 64  # bytes; also the width of the widest vector register


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A C-contiguous array of unset numbers whose first element is on a cache line.

    A vector load that crosses a line costs two; NumPy itself aligns to 16 bytes only.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """As `aligned_empty`, filled with zeros."""
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


def outline(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of this shape, C-contiguous, that takes no memory: it has sizes and views, but no numbers. Reading one
    would read memory of others; writing raises ValueError."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    element = np.zeros(1, dtype)
    strides = [element.itemsize]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(1, size))
    return np.lib.stride_tricks.as_strided(element, shape, strides[: len(shape)], writeable=False)
