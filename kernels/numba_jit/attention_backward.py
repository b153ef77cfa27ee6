"""The gradient of causal attention, in blocks like the forward pass in `attention` (Dao et al. 2022, 2023).

Each block of keys visits the blocks of queries from the diagonal on, as far as they see a key of it. The weights are
recomputed from the scores and the saved log-sum-exp, so no T x T matrix is stored.
"""

from __future__ import annotations

import numba
import numpy as np

from .. import contract
from ..contract import Array, Precision, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.attention_memory import BackwardMemory, backward_work, dq_of_part
from ._simd.attention_plan import BACKWARD_QUERIES, BackwardPlan, plan_backward
from ._simd.attention_rows import softmax_gradient_rows
from ._simd.blocks import add_product_causal, add_product_transposed, multiply_causal
from ._simd.elementwise import add, zero
from ._simd.packing import pack
from ._simd.reductions import dot
from ._simd.tiles import lanes_of, product_address, tile_height
from ._simd.views import causal
from ._simd.word_rows import left_causal, left_operand, left_transposed
from ._simd.words import operand_dtype, per_word, words
from .attention import channels_of, drop_rows, head_of, hide, split_head
from .dropout import Dropout, rate_of


@implements(contract.attention_backward)
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array,
    *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0, precision: Precision = "float32",
) -> None:  # fmt: skip
    # (B,T,C), (B,T,3C), (B,T,C), (B,NH,T) -> (B,T,3C)
    contract.check_window("attention_backward", window)
    dtype, packed = out.dtype, operand_dtype(out.dtype, precision)
    threads = thread_count()
    plan = plan_backward(*out.shape, lse.shape[1], packed, threads, product_address(packed), window)
    memory = (
        scratch("whole heads", plan.dqueries, dtype),
        scratch("scores", plan.scores, dtype),
        scratch("dscores", plan.scores, dtype),
        scratch("keys", plan.transposed, packed),
        scratch("values", plan.transposed, packed),
        scratch("key rows", plan.key_rows, packed),
        scratch("query rows", plan.query_rows, packed),
        scratch("dout rows", plan.query_rows, packed),
        scratch("row sums", plan.row_sums, dtype),
        scratch("left queries", threads * plan.left_q, packed),
        scratch("left weights", threads * plan.left_scores, packed),
    )
    rate = tuple(rate_of(dropout_rate))
    _backward(dqkv, dout, qkv, out, lse, np.uint64(dropout_key), rate, memory, tuple(plan))


@kernel()
def _backward(dqkv, dout, qkv, out, lse, key, rate, memory, plan):
    memory, plan, dropout = BackwardMemory(*memory), BackwardPlan(*plan), Dropout(key, *rate)
    arrays = (dqkv, dout, qkv, out, lse)
    B, NH, T = lse.shape
    for item in numba.prange(B * NH * plan.parts):
        _backward_part(item // plan.parts, item % plan.parts, arrays, dropout, memory, plan)
    if plan.parts > 1:
        for row in numba.prange(B * NH * T):
            _add_parts(row // T, row % T, dqkv, NH, memory, plan)


@device
def _add_parts(bh, t, dqkv, NH, memory, plan):
    """dq of one query = the sum over the parts of the head's keys, in their order"""
    dq, _, _ = split_head(dqkv, bh, NH)
    total = dq[t]
    zero(total)
    for part in range(plan.parts):
        add(total, dq_of_part(bh, part, dq.rows, dq.columns, memory, plan)[t], total)


@device
def _backward_part(bh, part, arrays, dropout, memory, plan):
    """Compute what every `parts`-th block of keys of a head contributes to the gradients."""
    dqkv, dout, qkv, out, lse = arrays
    NH = lse.shape[1]
    head, gradients = head_of(qkv, lse, bh), split_head(dqkv, bh, NH)
    dout, out = channels_of(dout, bh, NH), channels_of(out, bh, NH)
    T, HS, first, window = head.q.rows, head.q.columns, part * plan.keys, plan.window
    work = backward_work(T, HS, memory, plan)
    dq, dk, dv = gradients
    if plan.parts > 1:
        dq = dq_of_part(bh, part, T, HS, memory, plan)
    # all other queries see the first block of keys, which sets their dq
    unset = min(T, first) if window >= T else T
    for t in range(unset):
        zero(dq[t])
    # row_sum = sum_j weights * dweights = dout . out
    for t in range(first, T):
        work.row_sum[t] = dot(dout[t], out[t])
    for k0 in range(first, T, plan.parts * plan.keys):
        k, v = head.k[k0 : k0 + plan.keys], head.v[k0 : k0 + plan.keys]
        pack(work.k_T[:, : k.rows], k.T)
        pack(work.v_T[:, : v.rows], v.T)
        pack(work.k[: words(k.rows, work.k)], k)
        begun = k0 > first or window < T
        for q0 in range(k0, min(T, k0 + k.rows + window - 1), BACKWARD_QUERIES):
            _backward_block((dq, dk, dv), dout, head, work, (q0, k0, window), begun, dropout)


@device
def _backward_block(gradients, dout, head, work, at, begun, dropout):
    """Add what a block of queries from q0 on and a block of keys from k0 on contribute to dq, dk and dv.

    dk and dv begin on the diagonal; dq is set unless it has `begun`.
    """
    q0, k0, window = at
    q1 = min(q0 + BACKWARD_QUERIES, head.q.rows)
    k1 = min(k0 + work.k_T.columns, q1)  # no query of the block sees a key from q1 on
    dq, dk, dv = gradients[0][q0:q1], gradients[1][k0:k1], gradients[2][k0:k1]
    q, dout, lse, row_sum = head.q[q0:q1], dout[q0:q1], head.lse[q0:q1], work.row_sum[q0:q1]
    k_T, v_T, k = work.k_T[:, : k1 - k0], work.v_T[:, : k1 - k0], work.k[: words(k1 - k0, work.k)]
    # names of the same memory at different times
    scores = weights = dropped = causal(work.scores[: q.rows], q0 - k0)
    dweights = dscores = causal(work.dscores[: q.rows], q0 - k0)
    packed_q, packed_dout = work.q[: words(q.rows, work.q)], work.dout[: words(q.rows, work.q)]
    pack(packed_q, q)
    pack(packed_dout, dout)

    # scores = q k^T;  dweights = dout v^T
    multiply_causal(scores, left_operand(work.left_q, q), k_T)
    if q1 - window > k0:
        hide(scores, q0 - window + 1 - k0)
    multiply_causal(dweights, left_operand(work.left_q, dout), v_T)
    lanes = lanes_of(q)
    reach = tile_height(k.width, lanes) + per_word(k) - 1
    for i in range(0, q.rows, lanes):
        rows, row = slice(i, i + lanes), head.row + q0 + i
        if dropout.use:
            drop_rows(dweights[rows], dropout, row, k0)
        # weights = exp(scores / sqrt(HS) - lse);  dscores = weights * (dweights - row_sum) / sqrt(HS), both in place
        softmax_gradient_rows(weights[rows], dscores[rows], lse[rows], row_sum[rows], head.scale, reach)
        if dropout.use:
            drop_rows(dropped[rows], dropout, row, k0)

    # dv += dropped^T dout;  dk += dscores^T q;  dq += dscores k
    add_product_transposed(dv, left_transposed(work.left_weights, dropped), packed_dout)
    add_product_transposed(dk, left_transposed(work.left_weights, dscores), packed_q)
    add_product_causal(dq, left_causal(work.left_weights, dscores), k, begun)
