"""Causal attention in tiles with an online softmax: nothing of size T x T is ever held (Dao et al. 2022, 2023).

Forward: a block of queries walks over the blocks of keys up to its own; scores of one block at a time are made, turned
into weights relative to the largest score so far, and multiplied with the values. When a larger score appears, what was
summed before is scaled down. Backward: a block of keys walks over the blocks of queries from its own on, with the
weights made again from the scores and the saved log-sum-exp.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.attention_plan import BACKWARD_QUERIES, QUERIES, plan_backward, plan_forward
from ._simd.attention_rows import softmax_gradient_rows, softmax_rows
from ._simd.blocks import add_product_of_causal, add_product_of_transposed, multiply_causal
from ._simd.elementwise import add, drop, scale, zero
from ._simd.packing import pack
from ._simd.product_plan import panels_size
from ._simd.reductions import dot, maximum
from ._simd.softmax import exp_into
from ._simd.tiles import lanes_of, product_address, tile_height
from ._simd.views import causal, matrix, panels, row_of
from .dropout import Dropout, rate_of, row_hash


class ForwardMemory(NamedTuple):
    """What the forward pass works in, and with."""

    multiply: int  # the address of the product's machine code
    panels: Any  # keys and values, packed
    scores: Any
    state: Any


class BackwardMemory(NamedTuple):
    """What the backward pass works in, and with."""

    multiply: int
    dq: Any  # the gradients of queries, by the parts of a head
    scores: Any
    dscores: Any
    k_T: Any  # packed, as all that follows
    v_T: Any
    k: Any
    q: Any
    dout: Any
    means: Any


@implements(contract.attention_forward)
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    # (B,T,3C) -> (B,T,C), (B,NH,T)
    dtype = out.dtype
    plan = plan_forward(*out.shape, lse.shape[1], dtype, thread_count())
    memory = ForwardMemory(
        product_address(dtype),
        scratch("whole heads", plan.panels, dtype),  # the backward pass has other use for it
        scratch("scores", plan.scores, dtype),
        scratch("rows", plan.rows, dtype),
    )
    _forward(out, lse, qkv, np.uint64(dropout_key), rate_of(dropout_rate), memory, plan)


@implements(contract.attention_backward)
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    # (B,T,C), (B,T,3C), (B,T,C), (B,NH,T) -> (B,T,3C)
    dtype = out.dtype
    plan = plan_backward(*out.shape, lse.shape[1], dtype, thread_count())
    memory = BackwardMemory(
        product_address(dtype),
        scratch("whole heads", plan.dqueries, dtype),
        scratch("scores", plan.scores, dtype),
        scratch("dscores", plan.scores, dtype),
        scratch("keys", plan.transposed, dtype),
        scratch("values", plan.transposed, dtype),
        scratch("key rows", plan.key_rows, dtype),
        scratch("query rows", plan.query_rows, dtype),
        scratch("dout rows", plan.query_rows, dtype),
        scratch("means", plan.means, dtype),
    )
    _backward(dqkv, dout, qkv, out, lse, np.uint64(dropout_key), rate_of(dropout_rate), memory, plan)


@implements(contract.attention_weights)
def attention_weights(weights: Array, qkv: Array, first: int = 0) -> None:
    # (B,T,3C) -> (B,NH,R,T)
    R, T = weights.shape[2:]
    contract.check_rows(T, R, first)
    _weights(weights, qkv, first)


# ------------------------------------------------------------------------------------------------------ parts of a head

packed_size = device(panels_size)


@device
def split_head(qkv, bh, NH):
    """(B,T,3C) -> q, k, v of one head, each (T,HS): views, nothing is copied."""
    T, C = qkv.shape[1], qkv.shape[2] // 3
    HS = C // NH
    at = bh // NH * T * 3 * C + bh % NH * HS
    return (
        matrix(qkv, at, T, HS, 3 * C),
        matrix(qkv, at + C, T, HS, 3 * C),
        matrix(qkv, at + 2 * C, T, HS, 3 * C),
    )


@device
def head_of(out, bh, NH):
    """(B,T,C) -> one head (T,HS), a view."""
    T, C = out.shape[1:]
    HS = C // NH
    return matrix(out, bh // NH * T * C + bh % NH * HS, T, HS, C)


@device
def drop_rows(weights, dropout, row, column):
    """Dropout of some rows of weights, or of their gradients; in the mask the first element is (row, column)."""
    for i in range(weights.rows):
        seen = weights[i][: weights.diagonal + i + 1]
        bits = row_hash(dropout.key, row + i)
        drop(seen, seen, seen[:0], bits, column, dropout.threshold, dropout.scale)


# ------------------------------------------------------------------------------------------------------------- forward


class ForwardHead(NamedTuple):
    """What belongs to one head of one sequence."""

    q: Any  # (T,HS)
    k: Any
    v: Any
    out: Any
    lse: Any  # (T,)
    scale: Any  # of the scores
    row: Any  # the first of the dropout mask
    k_T: Any  # packed
    packed_v: Any
    scores: Any  # (QUERIES,keys), the thread's own
    state: Any  # (3,QUERIES): a row's largest score so far, the sum of its weights, what is left of what was summed


@device
def forward_head(bh, slot, arrays, memory, plan):
    """A head, with its packed keys and values in a slot of the memory."""
    out, lse, qkv = arrays
    NH, T = lse.shape[1:]
    q, k, v = split_head(qkv, bh, NH)
    HS, thread = q.columns, numba.get_thread_id()
    k_size = packed_size(HS, T, plan.k_width)
    at = slot * (k_size + packed_size(T, HS, plan.v_width))
    return ForwardHead(
        q, k, v, head_of(out, bh, NH), row_of(lse, bh * T, T),
        out.dtype.type(1.0 / math.sqrt(HS)), bh * T,
        panels(memory.panels, at, HS, T, plan.k_width, memory.multiply),
        panels(memory.panels, at + k_size, T, HS, plan.v_width, memory.multiply),
        matrix(memory.scores, thread * QUERIES * plan.keys, QUERIES, plan.keys, plan.keys),
        matrix(memory.state, thread * 3 * QUERIES, 3, QUERIES, QUERIES),
    )  # fmt: skip


@kernel()
def _forward(out, lse, qkv, key, rate, memory, plan):
    arrays, dropout = (out, lse, qkv), Dropout(key, rate.use, rate.threshold, rate.scale)
    B, NH, T = lse.shape
    q_blocks, k_panels = (T + QUERIES - 1) // QUERIES, (T + plan.k_width - 1) // plan.k_width
    if plan.by_head:
        for bh in numba.prange(B * NH):
            _forward_head(bh, arrays, dropout, memory, plan)
    else:
        for item in numba.prange(B * NH * k_panels):
            _pack_panel(item // k_panels, item % k_panels, arrays, memory, plan)
        for item in numba.prange(B * NH * q_blocks):
            _forward_turn(item // q_blocks, item % q_blocks, arrays, dropout, memory, plan)


@device
def _forward_head(bh, arrays, dropout, memory, plan):
    """All queries of one head, by one thread."""
    head = forward_head(bh, numba.get_thread_id(), arrays, memory, plan)
    _pack_keys_and_values(head, 0, head.k.rows)
    for q0 in range(0, head.q.rows, QUERIES):
        _forward_block(head, q0, dropout)


@device
def _pack_panel(bh, p, arrays, memory, plan):
    """One panel of keys, and as many values, of a head that has a slot of its own."""
    _pack_keys_and_values(forward_head(bh, bh, arrays, memory, plan), p * plan.k_width, (p + 1) * plan.k_width)


@device
def _forward_turn(bh, turn, arrays, dropout, memory, plan):
    """One block of queries of a head that is packed: light and heavy ones in turn."""
    head = forward_head(bh, bh, arrays, memory, plan)
    blocks = (head.q.rows + QUERIES - 1) // QUERIES
    q_block = turn // 2 if turn % 2 == 0 else blocks - 1 - turn // 2
    _forward_block(head, q_block * QUERIES, dropout)


@device
def _pack_keys_and_values(head, first, last):
    pack(head.k_T[:, first:last], head.k[first:last].T)
    pack(head.packed_v[first:last], head.v[first:last])


@device
def _forward_block(head, q0, dropout):
    """A block of queries from q0 on: over the blocks of keys up to the last that it may look at."""
    q, out, lse = head.q[q0 : q0 + QUERIES], head.out[q0 : q0 + QUERIES], head.lse[q0 : q0 + QUERIES]
    real, lanes = lse.dtype.type, lanes_of(q)
    reach = tile_height(head.packed_v.width, lanes)
    end, keys = q0 + q.rows, head.scores.columns
    for k0 in range(0, end, keys):
        k1 = min(k0 + keys, end)
        k_T, v = head.k_T[:, k0:k1], head.packed_v[k0:k1]
        weights = causal(head.scores[: q.rows], q0 - k0)

        # scores = q k^T
        multiply_causal(weights, q, k_T)
        for i in range(0, q.rows, lanes):
            rows, state = weights[i : i + lanes], head.state[:, i : i + lanes]
            # weights = exp(scores - largest)
            softmax_rows(rows, state, head.scale, k0 == 0, reach)
            if k0 > 0:
                _shrink(out[i : i + lanes], state[2])
            if dropout.use:
                drop_rows(rows, dropout, head.row + q0 + i, k0)
        # out += weights v
        add_product_of_causal(out, weights, v, k0 > 0)

    largest, total = head.state[0], head.state[1]
    for i in range(q.rows):
        lse[i] = largest[i] * head.scale + real(math.log(total[i]))
        scale(out[i], real(1) / total[i])


@device
def _shrink(out, factors):
    """What was summed before a larger score appeared counts less now."""
    for i in range(out.rows):
        if factors[i] != 1:
            scale(out[i], factors[i])


# ------------------------------------------------------------------------------------------------------------ backward


class BackwardHead(NamedTuple):
    """What belongs to one head of one sequence, and the memory of the thread that is at it."""

    q: Any  # (T,HS)
    k: Any
    v: Any
    out: Any
    dout: Any
    dq: Any
    dk: Any
    dv: Any
    lse: Any  # (T,)
    scale: Any  # of the scores
    row: Any  # the first of the dropout mask


class BackwardPanels(NamedTuple):
    """What a thread works in."""

    scores: Any  # (BACKWARD_QUERIES,keys)
    dscores: Any
    k_T: Any  # (HS,keys), packed
    v_T: Any
    k: Any  # (keys,HS), packed
    q: Any  # (BACKWARD_QUERIES,HS), packed
    dout: Any
    means: Any  # (T,): of a query's dweights under its weights


@device
def backward_head(bh, arrays):
    dqkv, dout, qkv, out, lse = arrays
    NH, T = lse.shape[1:]
    q, k, v = split_head(qkv, bh, NH)
    dq, dk, dv = split_head(dqkv, bh, NH)
    return BackwardHead(
        q, k, v, head_of(out, bh, NH), head_of(dout, bh, NH), dq, dk, dv,
        row_of(lse, bh * T, T), out.dtype.type(1.0 / math.sqrt(q.columns)), bh * T,
    )  # fmt: skip


@device
def backward_panels(T, HS, memory, plan):
    thread, m, keys = numba.get_thread_id(), memory.multiply, plan.keys
    k_T = thread * packed_size(HS, keys, plan.k_width)
    k, q = thread * packed_size(keys, HS, plan.c_width), thread * packed_size(BACKWARD_QUERIES, HS, plan.c_width)
    scores = thread * BACKWARD_QUERIES * keys
    return BackwardPanels(
        matrix(memory.scores, scores, BACKWARD_QUERIES, keys, keys),
        matrix(memory.dscores, scores, BACKWARD_QUERIES, keys, keys),
        panels(memory.k_T, k_T, HS, keys, plan.k_width, m),
        panels(memory.v_T, k_T, HS, keys, plan.k_width, m),
        panels(memory.k, k, keys, HS, plan.c_width, m),
        panels(memory.q, q, BACKWARD_QUERIES, HS, plan.c_width, m),
        panels(memory.dout, q, BACKWARD_QUERIES, HS, plan.c_width, m),
        row_of(memory.means, thread * T, T),
    )


@kernel()
def _backward(dqkv, dout, qkv, out, lse, key, rate, memory, plan):
    arrays, dropout = (dqkv, dout, qkv, out, lse), Dropout(key, rate.use, rate.threshold, rate.scale)
    B, NH, T = lse.shape
    for item in numba.prange(B * NH * plan.parts):
        _backward_part(item // plan.parts, item % plan.parts, arrays, dropout, memory, plan)
    if plan.parts > 1:
        for row in numba.prange(B * NH * T):
            _add_parts(row // T, row % T, dqkv, NH, memory.dq, plan.parts)


@device
def _part_of_dq(bh, part, parts, T, HS, dq):
    """Where a part of a head sums up gradients of queries."""
    return matrix(dq, (bh * parts + part) * T * HS, T, HS, HS)


@device
def _add_parts(bh, t, dqkv, NH, dq_parts, parts):
    """dq of one query, from what the parts of the head found."""
    dq = split_head(dqkv, bh, NH)[0]
    total = dq[t]
    zero(total)
    for part in range(parts):
        found = _part_of_dq(bh, part, parts, dq.rows, dq.columns, dq_parts)[t]
        add(total, found, total)


@device
def _backward_part(bh, part, arrays, dropout, memory, plan):
    """Every `parts`-th block of keys of one head: over the blocks of queries from the first that may look at it."""
    head = backward_head(bh, arrays)
    T, HS, first = head.q.rows, head.q.columns, part * plan.keys
    own = backward_panels(T, HS, memory, plan)
    dq = head.dq  # goes to where it belongs at once, or to the sum of the part
    if plan.parts > 1:
        dq = _part_of_dq(bh, part, plan.parts, T, HS, memory.dq)
        for t in range(0, min(T, first)):  # queries that look at none of the part's keys
            zero(dq[t])
    for t in range(first, T):
        own.means[t] = dot(head.dout[t], head.out[t])
    for k0 in range(first, T, plan.parts * plan.keys):
        k, v = head.k[k0 : k0 + plan.keys], head.v[k0 : k0 + plan.keys]
        pack(own.k_T, k.T)
        pack(own.v_T, v.T)
        pack(own.k, k)
        for q0 in range(k0, T, BACKWARD_QUERIES):
            _backward_block(head, own, dq[q0 : q0 + BACKWARD_QUERIES], q0, k0, k0 > first, dropout)


@device
def _backward_block(head, own, dq, q0, k0, begun, dropout):
    """What a block of queries from q0 on and a block of keys from k0 on add to the gradients of both; dq has begun."""
    q1 = min(q0 + BACKWARD_QUERIES, head.q.rows)
    k1 = min(k0 + own.k.rows, q1)  # keys that some query of the block may look at
    q, dout, lse, means = head.q[q0:q1], head.dout[q0:q1], head.lse[q0:q1], own.means[q0:q1]
    dk, dv = head.dk[k0:k1], head.dv[k0:k1]
    k_T, v_T, k = own.k_T[:, : k1 - k0], own.v_T[:, : k1 - k0], own.k[: k1 - k0]
    weights, dscores = causal(own.scores[: q.rows], q0 - k0), causal(own.dscores[: q.rows], q0 - k0)
    packed_q, packed_dout = own.q[: q.rows], own.dout[: q.rows]
    pack(packed_q, q)
    pack(packed_dout, dout)

    # scores = q k^T;  dweights = dout v^T
    multiply_causal(weights, q, k_T)
    multiply_causal(dscores, dout, v_T)
    lanes = lanes_of(q)
    reach = tile_height(k.width, lanes)
    for i in range(0, q.rows, lanes):
        end, row = i + lanes, head.row + q0 + i
        if dropout.use:
            drop_rows(dscores[i:end], dropout, row, k0)
        # weights = exp(scores - lse);  dscores = weights * (dweights - their mean) / sqrt(HS)
        softmax_gradient_rows(weights[i:end], dscores[i:end], lse[i:end], means[i:end], head.scale, reach)
        if dropout.use:
            drop_rows(weights[i:end], dropout, row, k0)

    # dv += weights^T dout;  dk += dscores^T q;  dq += dscores k
    add_product_of_transposed(dv, weights, packed_dout)
    add_product_of_transposed(dk, dscores, packed_q)
    add_product_of_causal(dq, dscores, k, begun)


# ---------------------------------------------------------------------------------------------- the weights themselves


@kernel()
def _weights(weights, qkv, first):
    B, NH, R, _ = weights.shape
    for item in numba.prange(B * NH * R):
        _weights_of_query(item, weights, qkv, first)


@device
def _weights_of_query(item, weights, qkv, first):
    NH, R, T = weights.shape[1:]
    q, k, _ = split_head(qkv, item // R, NH)
    query, row = q[first + item % R], row_of(weights, item * T, T)
    seen, future = row[: first + item % R + 1], row[first + item % R + 1 :]
    for j in range(seen.size):
        seen[j] = dot(query, k[j])
    total = exp_into(seen, seen, weights.dtype.type(1.0 / math.sqrt(query.size)), maximum(seen))
    for j in range(seen.size):
        seen[j] /= total
    zero(future)
