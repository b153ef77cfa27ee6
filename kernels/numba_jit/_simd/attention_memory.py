"""The working memory of attention, cut into views: packed operands, scores and sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from .._runtime.jit import device
from .attention_plan import BACKWARD_QUERIES, QUERIES
from .product_plan import panels_size
from .views import matrix, panels, row_of

packed_size = device(panels_size)


class ForwardMemory(NamedTuple):
    """The forward pass's arrays, each with room for all threads or all heads."""

    panels: Any
    scores: Any
    state: Any


class ForwardWork(NamedTuple):
    """What one thread uses for one head in the forward pass."""

    k_T: Any  # (HS,T), packed
    v: Any  # (T,HS), packed
    scores: Any  # (QUERIES,keys)
    state: Any  # (3,QUERIES): each row's largest score so far, the sum of its weights, and the factor for earlier sums


@device
def forward_work(slot, T, HS, memory, plan):
    """The working memory of the calling thread, with panels in the given slot."""
    k_size, v_size = packed_size(HS, T, plan.k_width), packed_size(T, HS, plan.v_width)
    thread, at = numba.get_thread_id(), slot * (k_size + v_size)
    return ForwardWork(
        panels(memory.panels, at, HS, T, plan.k_width, plan.multiply),
        panels(memory.panels, at + k_size, T, HS, plan.v_width, plan.multiply),
        matrix(memory.scores, thread * QUERIES * plan.keys, QUERIES, plan.keys, plan.keys),
        matrix(memory.state, thread * 3 * QUERIES, 3, QUERIES, QUERIES),
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


@device
def backward_work(T, HS, memory, plan):
    """The working memory of the calling thread."""
    thread, keys, multiply = numba.get_thread_id(), plan.keys, plan.multiply
    k_T = thread * packed_size(HS, keys, plan.k_width)
    k, q = thread * packed_size(keys, HS, plan.c_width), thread * packed_size(BACKWARD_QUERIES, HS, plan.c_width)
    scores = thread * BACKWARD_QUERIES * keys
    return BackwardWork(
        matrix(memory.scores, scores, BACKWARD_QUERIES, keys, keys),
        matrix(memory.dscores, scores, BACKWARD_QUERIES, keys, keys),
        panels(memory.k_T, k_T, HS, keys, plan.k_width, multiply),
        panels(memory.v_T, k_T, HS, keys, plan.k_width, multiply),
        panels(memory.k, k, keys, HS, plan.c_width, multiply),
        panels(memory.q, q, BACKWARD_QUERIES, HS, plan.c_width, multiply),
        panels(memory.dout, q, BACKWARD_QUERIES, HS, plan.c_width, multiply),
        row_of(memory.row_sum, thread * T, T),
    )


@device
def dq_of_part(bh, part, T, HS, memory, plan):
    """The gradient of a head's queries, (T,HS), as far as one part of its keys contributes to it."""
    return matrix(memory.dq, (bh * plan.parts + part) * T * HS, T, HS, HS)
