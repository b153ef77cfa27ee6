"""How the matrices of Muon are dealt out to the threads, and how much working memory each thread needs."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array
from ...newton_schulz import MatrixAt
from .._runtime.jit import inlined
from .._runtime.target import TARGET
from .product_plan import panels_size, tile_shape

LEAST_PACKED = 64  # rows and columns that are packed at a time, at least, where a matrix is narrower


class MuonPlan(NamedTuple):
    """`places` has a row for each matrix: start, rows, columns and stride, the width of its panels, and how many rows
    and columns are packed at a time. Thread t takes the rows `shares[t]` to `shares[t + 1]`."""

    places: Array
    shares: Array
    part: int  # elements of working memory of each thread
    size: int  # of all threads


@functools.lru_cache(64)
def plan_muon(matrices: tuple[MatrixAt, ...], dtype: np.dtype[Any], threads: int) -> MuonPlan:
    """Deal out the matrices, the largest first, each to the thread that has the least to do."""
    lanes, part = TARGET.lanes(dtype.itemsize), 0
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(max(1, min(threads, len(matrices))))]
    loads = [0] * len(dealt)
    for matrix in sorted(matrices, key=_work, reverse=True):
        n = min(matrix.rows, matrix.columns)
        width, packed = tile_shape(n, dtype)[0], max(n, LEAST_PACKED)
        part = max(part, 4 * n * _row(n, lanes) + panels_size(packed, packed, width))
        least = loads.index(min(loads))
        loads[least] += _work(matrix)
        dealt[least].append((*matrix, width, packed))
    places = np.array([place for each in dealt for place in each], np.int64).reshape(-1, 6)
    shares = np.cumsum([0, *map(len, dealt)], dtype=np.int64)
    part = -(-part // 32) * 32  # whole cache lines
    return MuonPlan(places, shares, part, part * len(dealt))


def _work(matrix: MatrixAt) -> int:
    """Roughly the multiplications; see `costs.muon_flops`."""
    n, m = sorted((matrix.rows, matrix.columns))
    return n * n * (14 * n + 6 * m)


def _row(n: int, lanes: int) -> int:
    """How far apart the rows of a matrix n x n are: whole vectors, and one more, so that no two rows of a tile compete
    for a place in the cache where n is a power of 2."""
    return -(-n // lanes) * lanes + lanes


room_for_rows = inlined(_row)
