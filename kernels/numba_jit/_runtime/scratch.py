"""Working memory of the kernels: allocated once, grown when a larger call comes, then used again.

A step of training allocates nothing after the first. Each Python thread has its own, for two models may train at once.
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
    """At least `size` unset elements, one-dimensional; valid until the next call with the same purpose and dtype."""
    buffers = _local.__dict__.setdefault("buffers", {})
    buffer: Array | None = buffers.get((purpose, dtype))
    if buffer is None or buffer.size < size:
        buffers.pop((purpose, dtype), None)
        buffer = None  # let the old one go before the new one comes
        buffer = buffers[purpose, dtype] = aligned_empty(size, dtype)
        _local.generation = next(_generations)
    return buffer


def generation() -> int:
    """A number that no other Python thread has, and that is another one as soon as a buffer of this one's has grown;
    0 as long as it has none."""
    return int(getattr(_local, "generation", 0))
