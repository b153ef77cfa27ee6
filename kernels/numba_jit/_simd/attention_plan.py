"""How attention is split: into blocks of scores, heads and parts of heads, and how much working memory they take."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .product_plan import panels_size, tile_shape
from .word_rows import left_size
from .words import numbers_per_word

QUERIES = 48  # rows of a block of scores: a multiple of the tiles' heights
KEYS = 384  # columns of a block of scores: 48 x 384 float32 stay in the L2 cache
BACKWARD_QUERIES, BACKWARD_KEYS = 96, 192
EVEN = 8  # with so many heads per thread, any number of heads is balanced well enough
PARTS = 8  # items of work of the backward pass, at least: fixed by the data, and so is the order of sums


class ForwardPlan(NamedTuple):
    """How the forward pass is split."""

    multiply: int  # the address of the product's machine code
    panels: int  # elements of working memory: packed keys and values,
    scores: int
    rows: int  # and the softmax's state for each row of a block
    by_head: bool  # each thread packs the head that it works on; otherwise all threads pack all heads before
    left_q: int  # for each thread: queries as left operands, and weights, if these are packed
    left_weights: int
    k_width: int  # columns of a panel of keys
    v_width: int  # columns of a panel of values
    keys: int  # of a block of scores
    window: int  # keys that a query sees, at most


@functools.lru_cache(4096)
def plan_forward(
    B: int, T: int, C: int, NH: int, dtype: np.dtype[Any], threads: int, multiply: int, window: int = 0
) -> ForwardPlan:
    k_width, v_width = tile_shape(min(T, KEYS), dtype)[0], tile_shape(C // NH, dtype)[0]
    keys = -(-KEYS // k_width) * k_width
    by_head = B * NH % threads == 0 or EVEN * threads <= B * NH
    each = numbers_per_word(dtype)
    head = panels_size(-(-C // NH // each), T, k_width) + panels_size(-(-T // each), C // NH, v_width)
    return ForwardPlan(
        multiply, head * (threads if by_head else B * NH), threads * QUERIES * keys, threads * 3 * QUERIES, by_head,
        left_size(QUERIES, C // NH, dtype), left_size(QUERIES, keys, dtype),
        k_width, v_width, keys, window or T,
    )  # fmt: skip


class BackwardPlan(NamedTuple):
    """How the backward pass is split."""

    multiply: int  # the address of the product's machine code
    dqueries: int  # elements of working memory: the gradients of queries, one set per part of a head,
    scores: int  # scores, and as many for their gradients,
    transposed: int  # transposed keys in panels, and as many for values,
    key_rows: int  # keys in panels,
    query_rows: int  # queries in panels, and as many for dout,
    row_sums: int  # a number for each query,
    left_q: int  # and for each thread: queries as left operands, and scores, if these are packed
    left_scores: int
    parts: int  # that the blocks of keys of a head are dealt out to
    k_width: int  # columns of a panel of keys or values
    c_width: int  # columns of a panel of channels
    keys: int  # of a block of scores
    window: int  # keys that a query sees, at most


@functools.lru_cache(4096)
def plan_backward(
    B: int, T: int, C: int, NH: int, dtype: np.dtype[Any], threads: int, multiply: int, window: int = 0
) -> BackwardPlan:
    HS = C // NH
    k_width, c_width = tile_shape(min(T, BACKWARD_KEYS), dtype)[0], tile_shape(HS, dtype)[0]
    keys = -(-BACKWARD_KEYS // k_width) * k_width
    parts = max(1, min(-(-T // keys), -(-PARTS // (B * NH))))
    row, each = panels_size(1, HS, c_width), numbers_per_word(dtype)
    return BackwardPlan(
        multiply, B * NH * parts * T * HS if parts > 1 else 0, threads * BACKWARD_QUERIES * keys,
        threads * panels_size(-(-HS // each), keys, k_width), threads * keys // each * row,
        threads * BACKWARD_QUERIES // each * row, threads * T,
        left_size(BACKWARD_QUERIES, HS, dtype), left_size(BACKWARD_QUERIES, keys, dtype),
        parts, k_width, c_width, keys, window or T,
    )  # fmt: skip
