"""Working memory of the kernels: allocated once, grown when a larger call needs more, and reused.

A training step allocates nothing after the first. Each Python thread has its own memory, since two models may train at
the same time.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np

from ...contract import Array
from ...memory import aligned_empty

_local = threading.local()
_generations = itertools.count(1)


def scratch(purpose: str, size: int, dtype: np.dtype[Any]) -> Array:
    """Return at least `size` uninitialized elements, in one dimension.

    They are valid until the next call with the same purpose and dtype.
    """
    buffers = _local.__dict__.setdefault("buffers", {})
    buffer: Array | None = buffers.get((purpose, dtype))
    if buffer is None or buffer.size < size:
        buffers.pop((purpose, dtype), None)
        buffer = None  # free the old one before the new one is allocated
        buffer = buffers[purpose, dtype] = aligned_empty(size, dtype)
        _local.generation = next(_generations)
    return buffer


def generation() -> int:
    """Return a number that is unique to this Python thread and changes whenever one of its buffers grows.

    It is 0 while the thread has no buffers.
    """
    return int(getattr(_local, "generation", 0))
