"""The working memory of attention, cut into views: packed operands, scores and sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from .._runtime.jit import device
from .attention_plan import BACKWARD_QUERIES, QUERIES
from .product_plan import panels_size
from .views import matrix, panels, row_of
from .words import words

packed_size = device(panels_size)


class ForwardMemory(NamedTuple):
    """The forward pass's arrays, each with room for all threads or all heads."""

    panels: Any
    scores: Any
    state: Any
    left_q: Any
    left_weights: Any


class ForwardWork(NamedTuple):
    """What one thread uses for one head in the forward pass."""

    k_T: Any  # (HS,T), packed
    v: Any  # (T,HS), packed
    scores: Any  # (QUERIES,keys)
    state: Any  # (3,QUERIES): each row's largest score so far, the sum of its weights, and the factor for earlier sums
    left_q: Any  # rooms for queries and weights as left operands
    left_weights: Any


@device
def forward_work(slot, T, HS, memory, plan):
    """The working memory of the calling thread, with panels in the given slot."""
    HS_words, T_words = words(HS, memory.left_q), words(T, memory.left_q)
    k_size, v_size = packed_size(HS_words, T, plan.k_width), packed_size(T_words, HS, plan.v_width)
    thread, at = numba.get_thread_id(), slot * (k_size + v_size)
    return ForwardWork(
        panels(memory.panels, at, HS_words, T, plan.k_width, plan.multiply),
        panels(memory.panels, at + k_size, T_words, HS, plan.v_width, plan.multiply),
        matrix(memory.scores, thread * QUERIES * plan.keys, QUERIES, plan.keys, plan.keys),
        matrix(memory.state, thread * 3 * QUERIES, 3, QUERIES, QUERIES),
        row_of(memory.left_q, thread * plan.left_q, plan.left_q),
        row_of(memory.left_weights, thread * plan.left_weights, plan.left_weights),
    )


class BackwardMemory(NamedTuple):
    """The backward pass's arrays, each with room for all threads or all parts of heads."""

    dq: Any
    scores: Any
    dscores: Any
    k_T: Any
    v_T: Any
    k: Any
    q: Any
    dout: Any
    row_sum: Any
    left_q: Any
    left_weights: Any


class BackwardWork(NamedTuple):
    """What one thread uses in the backward pass."""

    scores: Any  # (BACKWARD_QUERIES,keys)
    dscores: Any  # (BACKWARD_QUERIES,keys)
    k_T: Any  # (HS,keys), packed
    v_T: Any  # (HS,keys), packed
    k: Any  # (keys,HS), packed
    q: Any  # (BACKWARD_QUERIES,HS), packed
    dout: Any  # (BACKWARD_QUERIES,HS), packed
    row_sum: Any  # (T,)
    left_q: Any  # rooms for queries or dout, and for weights or dscores, as left operands
    left_weights: Any


@device
def backward_work(T, HS, memory, plan):
    """The working memory of the calling thread."""
    thread, keys, multiply = numba.get_thread_id(), plan.keys, plan.multiply
    HS_words, key_words = words(HS, memory.left_q), words(keys, memory.left_q)
    query_words = words(BACKWARD_QUERIES, memory.left_q)
    k_T = thread * packed_size(HS_words, keys, plan.k_width)
    k, q = thread * packed_size(key_words, HS, plan.c_width), thread * packed_size(query_words, HS, plan.c_width)
    scores = thread * BACKWARD_QUERIES * keys
    return BackwardWork(
        matrix(memory.scores, scores, BACKWARD_QUERIES, keys, keys),
        matrix(memory.dscores, scores, BACKWARD_QUERIES, keys, keys),
        panels(memory.k_T, k_T, HS_words, keys, plan.k_width, multiply),
        panels(memory.v_T, k_T, HS_words, keys, plan.k_width, multiply),
        panels(memory.k, k, key_words, HS, plan.c_width, multiply),
        panels(memory.q, q, query_words, HS, plan.c_width, multiply),
        panels(memory.dout, q, query_words, HS, plan.c_width, multiply),
        row_of(memory.row_sum, thread * T, T),
        row_of(memory.left_q, thread * plan.left_q, plan.left_q),
        row_of(memory.left_weights, thread * plan.left_scores, plan.left_scores),
    )


@device
def dq_of_part(bh, part, T, HS, memory, plan):
    """The gradient of a head's queries, (T,HS), as far as one part of its keys contributes to it."""
    return matrix(memory.dq, (bh * plan.parts + part) * T * HS, T, HS, HS)
