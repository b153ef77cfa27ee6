"""Causal attention in blocks with an online softmax: no T x T matrix is ever stored (Dao et al. 2022, 2023).

Each block of queries visits the blocks of keys up to the diagonal. Scores become weights relative to the largest score
so far, and weights @ v is added to the output. When a later block has a larger score, the output so far is scaled down.
With a window, the visit begins at the block that holds the first key of the first query's window.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from .. import contract
from ..bfloat16 import operand
from ..contract import Array, Precision, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.attention_memory import ForwardMemory, forward_work
from ._simd.attention_plan import QUERIES, ForwardPlan, plan_forward
from ._simd.attention_rows import softmax_rows
from ._simd.blocks import add_product_causal, multiply_causal
from ._simd.elementwise import drop, fill, scale, zero
from ._simd.packing import pack
from ._simd.reductions import dot, maximum
from ._simd.softmax import exp_into
from ._simd.tiles import lanes_of, product_address, tile_height
from ._simd.views import causal, whole
from ._simd.word_rows import left_causal, left_operand
from ._simd.words import is_rounded, operand_dtype, per_word, words
from .dropout import Dropout, rate_of, row_hash


@implements(contract.attention_forward)
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (B,T,3C) -> out (B,T,C), lse (B,NH,T)
    contract.check_window("attention_forward", window)
    dtype, packed = out.dtype, operand_dtype(out.dtype, precision)
    threads = thread_count()
    plan = plan_forward(*out.shape, lse.shape[1], packed, threads, product_address(packed), window)
    memory = (
        scratch("whole heads", plan.panels, packed),  # the backward pass keeps parts of dq there
        scratch("scores", plan.scores, dtype),
        scratch("rows", plan.rows, dtype),
        scratch("left queries", threads * plan.left_q, packed),
        scratch("left weights", threads * plan.left_weights, packed),
    )
    _forward(out, lse, qkv, np.uint64(dropout_key), tuple(rate_of(dropout_rate)), memory, tuple(plan))


@implements(contract.attention_weights)
def attention_weights(
    weights: Array, qkv: Array, first: int = 0, *, window: int = 0, precision: Precision = "float32"
) -> None:
    # (B,T,3C) -> (B,NH,R,T)
    contract.check_window("attention_weights", window)
    R, T = weights.shape[2:]
    contract.check_rows(T, R, first)
    _weights(weights, operand(qkv, precision), first, window or T)



# ------------------------------------------------------------------------------------------------------------ one head


class Head(NamedTuple):
    """One head of one sequence."""

    q: Any  # (T,HS)
    k: Any  # (T,HS)
    v: Any  # (T,HS)
    lse: Any  # (T,)
    scale: Any  # 1 / sqrt(HS)
    row: Any  # the head's first row in the dropout mask


@device
def head_of(qkv, lse, bh):
    """(B,T,3C), (B,NH,T) -> head bh % NH of sequence bh // NH."""
    NH, T = lse.shape[1:]
    q, k, v = split_head(qkv, bh, NH)
    return Head(q, k, v, whole(lse)[bh], qkv.dtype.type(1.0 / math.sqrt(q.columns)), bh * T)


@device
def split_head(qkv, bh, NH):
    """(B,T,3C) -> q, k, v of one head, each (T,HS): views, nothing is copied."""
    T, C = qkv.shape[1], qkv.shape[2] // 3
    HS, b, h = C // NH, bh // NH, bh % NH
    sequence = whole(qkv)[b * T : (b + 1) * T]
    return (
        sequence[:, h * HS : (h + 1) * HS],
        sequence[:, C + h * HS : C + (h + 1) * HS],
        sequence[:, 2 * C + h * HS : 2 * C + (h + 1) * HS],
    )


@device
def channels_of(x, bh, NH):
    """(B,T,C) -> the channels of one head, (T,HS)."""
    T, C = x.shape[1:]
    HS, b, h = C // NH, bh // NH, bh % NH
    return whole(x)[b * T : (b + 1) * T, h * HS : (h + 1) * HS]


@device
def hide(scores, keys):
    """scores = -inf for the first `keys` keys of the first row, one more of the second, and so on: they lie before the
    windows. With keys < 0, the first rows see all."""
    for i in range(max(0, 1 - keys), scores.rows):
        before = scores[i][: keys + i]
        fill(before, before.dtype.type(-math.inf))


@device
def drop_rows(weights, dropout, row, column):
    """weights *= mask / (1 - rate), up to the diagonal; their first element is at (row, column) of the mask."""
    for i in range(weights.rows):
        seen = weights[i][: weights.diagonal + i + 1]
        drop(seen, seen, seen[:0], row_hash(dropout.key, row + i), column, dropout.threshold, dropout.scale)


# ------------------------------------------------------------------------------------------------------------- forward
# Python passes plain tuples, which Numba dispatches faster than named ones; the kernels name their fields.


@kernel()
def _forward(out, lse, qkv, key, rate, memory, plan):
    memory, plan, dropout = ForwardMemory(*memory), ForwardPlan(*plan), Dropout(key, *rate)
    arrays = (out, lse, qkv)
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
    """Compute all queries of one head, which the calling thread packs for itself."""
    out, lse, qkv = arrays
    head = head_of(qkv, lse, bh)
    work = forward_work(numba.get_thread_id(), head.q.rows, head.q.columns, memory, plan)
    _pack_keys_and_values(work, head, 0, head.k.rows)
    for q0 in range(0, head.q.rows, QUERIES):
        _forward_block(channels_of(out, bh, lse.shape[1]), head, work, q0, plan.window, dropout)


@device
def _pack_panel(bh, p, arrays, memory, plan):
    """Pack one panel of keys, and as many values, into the head's own slot of the working memory."""
    _, lse, qkv = arrays
    head = head_of(qkv, lse, bh)
    work = forward_work(bh, head.q.rows, head.q.columns, memory, plan)
    _pack_keys_and_values(work, head, p * plan.k_width, (p + 1) * plan.k_width)


@device
def _forward_turn(bh, turn, arrays, dropout, memory, plan):
    """Compute one block of queries of a packed head. Blocks with few and with many keys alternate, so that threads
    that take successive turns share the work evenly."""
    out, lse, qkv = arrays
    head = head_of(qkv, lse, bh)
    work = forward_work(bh, head.q.rows, head.q.columns, memory, plan)
    blocks = (head.q.rows + QUERIES - 1) // QUERIES
    q_block = turn // 2 if turn % 2 == 0 else blocks - 1 - turn // 2
    _forward_block(channels_of(out, bh, lse.shape[1]), head, work, q_block * QUERIES, plan.window, dropout)


@device
def _pack_keys_and_values(work, head, first, last):
    pack(work.k_T[:, first:last], head.k[first:last].T)
    pack(work.v[first // per_word(work.v) : words(last, work.v)], head.v[first:last])


@device
def _forward_block(out, head, work, q0, window, dropout):
    """Compute the output of one block of queries, which begins at q0. Each sees its last `window` keys, if there are so
    many."""
    q, out, lse = head.q[q0 : q0 + QUERIES], out[q0 : q0 + QUERIES], head.lse[q0 : q0 + QUERIES]
    real, lanes, pair = lse.dtype.type, lanes_of(q), per_word(work.v)
    reach = tile_height(work.v.width, lanes) + pair - 1
    left_q = left_operand(work.left_q, q)
    end, keys, panel = q0 + q.rows, work.scores.columns, work.k_T.width
    first = k1 = max(0, q0 - window + 1) // panel * panel  # no query of the block sees a key before, or from `end` on
    while k1 < end:
        k0, k1 = k1, min(k1 + keys, end)
        if q0 < k1 < end:  # no block of keys may begin behind the first query
            k1 = q0 // panel * panel
        k_T, v = work.k_T[:, k0:k1], work.v[k0 // pair : words(k1, work.v)]
        columns = keys if k1 == end else k1 - k0  # with a diagonal, whole vectors beyond the last key are written
        scores = weights = causal(work.scores[: q.rows, :columns], q0 - k0)  # the same memory, before and after

        # scores = q k^T
        multiply_causal(scores, left_q, k_T)
        if q0 + q.rows - window > k0:
            hide(scores, q0 - window + 1 - k0)
        for i in range(0, q.rows, lanes):
            rows, state = weights[i : i + lanes], work.state[:, i : i + lanes]
            # weights = exp((scores - largest) / sqrt(HS)), in place of the scores
            softmax_rows(rows, state, head.scale, k0 == first, reach, is_rounded(v))
            if k0 > first:
                _shrink(out[i : i + lanes], state[2])
            if dropout.use:
                drop_rows(rows, dropout, head.row + q0 + i, k0)
        # out += weights v
        add_product_causal(out, left_causal(work.left_weights, weights[:, : v.rows * pair]), v, k0 > first)

    # out = out / total;  lse = log sum exp(scores / sqrt(HS))
    largest, total = work.state[0], work.state[1]
    for i in range(q.rows):
        lse[i] = largest[i] * head.scale + real(math.log(total[i]))
        scale(out[i], real(1) / total[i])


@device
def _shrink(out, factors):
    """Scale the output so far to a larger score: out[i] *= factors[i]"""
    for i in range(out.rows):
        if factors[i] != 1:
            scale(out[i], factors[i])


# ----------------------------------------------------------------------------------------------- the weights themselves


@kernel()
def _weights(weights, qkv, first, window):
    B, NH, R, _ = weights.shape
    for item in numba.prange(B * NH * R):
        _weights_of_query(item, weights, qkv, first, window)


@device
def _weights_of_query(item, weights, qkv, first, window):
    """weights = softmax(q k^T / sqrt(HS)) for one query, 0 for the keys that it does not see"""
    NH, R = weights.shape[1:3]
    q, k, _ = split_head(qkv, item // R, NH)
    i = first + item % R
    begin = max(0, i + 1 - window)
    row = whole(weights)[item]
    past, seen, future = row[:begin], row[begin : i + 1], row[i + 1 :]
    for j in range(seen.size):
        seen[j] = dot(q[i], k[begin + j])
    total = exp_into(seen, seen, weights.dtype.type(1.0 / math.sqrt(q.columns)), maximum(seen))
    for j in range(seen.size):
        seen[j] /= total
    zero(past)
    zero(future)
