"""How attention is cut: into blocks of scores, heads and parts of heads, and what working memory they take."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .product_plan import panels_size, tile_shape

QUERIES = 48  # rows of a block of scores: a multiple of the tiles' heights
KEYS = 384  # columns of a block of scores: 48 x 384 float32 stay in the L2 cache
BACKWARD_QUERIES, BACKWARD_KEYS = 96, 192
EVEN = 8  # heads for each thread, from which on they are dealt out evenly enough, whatever their number
PARTS = 8  # into so many parts at least the backward pass is cut, by data, so that the sums' order is fixed by data


class ForwardPlan(NamedTuple):
    """How the forward pass is cut."""

    multiply: int  # the address of the product's machine code
    panels: int  # elements of working memory: packed keys and values,
    scores: int
    rows: int  # and what is known of each row of a block
    by_head: bool  # each thread packs the head that it works on; else all are packed before, by all threads
    k_width: int  # columns of a panel of keys
    v_width: int  # columns of a panel of values
    keys: int  # of a block of scores


@functools.lru_cache(4096)
def plan_forward(
    B: int, T: int, C: int, NH: int, dtype: np.dtype[Any], threads: int, multiply: int
) -> ForwardPlan:
    k_width, v_width = tile_shape(min(T, KEYS), dtype)[0], tile_shape(C // NH, dtype)[0]
    keys = -(-KEYS // k_width) * k_width
    by_head = B * NH % threads == 0 or EVEN * threads <= B * NH
    head = panels_size(C // NH, T, k_width) + panels_size(T, C // NH, v_width)
    return ForwardPlan(
        multiply, head * (threads if by_head else B * NH), threads * QUERIES * keys, threads * 3 * QUERIES, by_head,
        k_width, v_width, keys,
    )  # fmt: skip


class BackwardPlan(NamedTuple):
    """How the backward pass is cut."""

    multiply: int  # the address of the product's machine code
    dqueries: int  # elements of working memory: gradients of queries, by the parts of a head,
    scores: int  # scores, and as many of their gradients,
    transposed: int  # keys in panels, and as many values,
    key_rows: int  # keys row by row,
    query_rows: int  # queries row by row, and as many gradients of the result,
    row_sums: int  # and a number for each query
    parts: int  # into which the keys of a head are dealt out
    k_width: int  # columns of a panel of keys or values
    c_width: int  # columns of a panel of channels
    keys: int  # of a block of scores


@functools.lru_cache(4096)
def plan_backward(
    B: int, T: int, C: int, NH: int, dtype: np.dtype[Any], threads: int, multiply: int
) -> BackwardPlan:
    HS = C // NH
    k_width, c_width = tile_shape(min(T, BACKWARD_KEYS), dtype)[0], tile_shape(HS, dtype)[0]
    keys = -(-BACKWARD_KEYS // k_width) * k_width
    parts = max(1, min(-(-T // keys), -(-PARTS // (B * NH))))
    row = panels_size(1, HS, c_width)
    return BackwardPlan(
        multiply, B * NH * parts * T * HS if parts > 1 else 0, threads * BACKWARD_QUERIES * keys,
        threads * panels_size(HS, keys, k_width), threads * keys * row, threads * BACKWARD_QUERIES * row, threads * T,
        parts, k_width, c_width, keys,
    )  # fmt: skip
