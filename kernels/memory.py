"""Arrays aligned to cache lines, arrays without memory, and how the C library reuses freed memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE = 64  # bytes; also the width of the widest vector register


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialized C-contiguous array that starts at a cache line.

    A vector load that crosses a cache line takes as long as two. NumPy itself only aligns to 16 bytes.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def aligned_zeros(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Like `aligned_empty`, filled with zeros."""
    array = aligned_empty(shape, dtype)
    array.fill(0)
    return array


def outline(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return a C-contiguous array of this shape without memory behind it, for its shape and its views.

    Reading an element would read foreign memory; writing raises ValueError.
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    element = np.zeros(1, dtype)
    strides = [element.itemsize]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(1, size))
    return np.lib.stride_tricks.as_strided(element, shape, strides[: len(shape)], writeable=False)


def keep_freed_memory() -> None:
    """Make this process's C library keep freed memory for reuse, in blocks of up to 1 GiB.

    By default it returns the memory of large arrays to the system, which hands it out again page by page, each cleared.
    NumPy's kernels allocate new arrays in every step, and this took up to half of its time. Only glibc can be
    configured. Setting either limit turns off its own adaptation of both, so both are set.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 32 << 20):  # the maximum in older versions
            mallopt(trim_threshold, (1 << 31) - 1)
