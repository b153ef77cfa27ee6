"""Arrays that start at a cache line, or take no memory at all; and what becomes of memory that is let go."""

from __future__ import annotations

import contextlib
import ctypes
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


def keep_freed_memory() -> None:
    """Have the C library of this process keep what is let go, and use it again, up to 1 GiB in a piece.

    Else it gives back what large arrays took, and asks for it anew: the system then hands it out page by page, each
    cleared. NumPy's kernels make new arrays in every step, and that took up to half of it. Only glibc is told; it then
    no longer judges by what the program does, so both limits must be set.
    """
    trim_threshold, mmap_threshold = -1, -3  # the names that `mallopt` has for them
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 32 << 20):  # as much as older ones take
            mallopt(trim_threshold, (1 << 31) - 1)
