"""Where generation keeps what it works with: rows of activations, branches and the key/value cache, as views."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...memory import CACHE_LINE
from ...windows import stride
from .._runtime.jit import device
from .views import matrix

PLACES = 2  # at most, where a token stands: so many rows go through the transformer at once
_stride = device(stride)


class Places(NamedTuple):
    """Where a token stands: at `place` of `window`; if there are two rows, also in the next window, `step` earlier."""

    rows: int
    window: int
    place: int
    step: int


@device
def places_of(index, S):
    """Where token number `index` of a text stands in windows of S places; see `kernels.windows`."""
    step = _stride(S)
    window = max(0, (index - S) // step + 1)
    place = index - window * step
    return Places(2 if place >= step else 1, window, place, step)


class Work(NamedTuple):
    """What one thread works in."""

    x: Any  # (PLACES,C)
    normed: Any  # (PLACES,C)
    qkv: Any  # (PLACES,3*HS)
    attended: Any  # (PLACES,HS)
    scores: Any  # (1,S)
    hidden: Any  # (PLACES,M)
    statistics: Any  # (2,): the mean and rstd of a row, which are not kept


def work_size(C: int, HS: int, S: int, M: int, dtype: np.dtype[Any]) -> int:
    """Elements that one thread needs, in pairs of cache lines, which some CPUs fetch together."""
    lines = 2 * CACHE_LINE // dtype.itemsize
    return -(-(PLACES * (2 * C + 4 * HS + M) + S + 2) // lines) * lines


@device
def work_of(own, C, HS, S, M):
    """The parts of a thread's row of working memory."""
    x, rest = _cut(own, PLACES, C)
    normed, rest = _cut(rest, PLACES, C)
    qkv, rest = _cut(rest, PLACES, 3 * HS)
    attended, rest = _cut(rest, PLACES, HS)
    scores, rest = _cut(rest, 1, S)
    hidden, rest = _cut(rest, PLACES, M)
    return Work(x, normed, qkv, attended, scores, hidden, rest[:2])


@device
def _cut(row, rows, columns):
    """The beginning of a row as a matrix, and the rest of the row."""
    return matrix(row, 0, rows, columns, columns), row[rows * columns :]


@device
def branch_of(branches, part, rows):
    """What a head or a group adds to the stream, (rows,C)."""
    return branches[part * PLACES : part * PLACES + rows]


@device
def cache_of(caches, window, head, S):
    """The keys or the values of a head in a window, (S,HS). The heads of all layers are counted through."""
    heads = caches.rows // (2 * S)
    at = (window % 2 * heads + head) * S
    return caches[at : at + S]
