"""Causal attention in tiles with an online softmax: nothing of size T x T is ever held (Dao et al. 2022, 2023).

Forward: a block of queries walks over the blocks of keys up to its own; scores of one block at a time are made, turned
into weights relative to the largest score so far, and multiplied with the values. When a larger score appears, what was
summed before is scaled down. Backward: a block of keys walks over the blocks of queries from its own on, with the
weights made again from the scores and the saved log-sum-exp.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from .. import contract
from ..contract import Array, implements
from ._jit import device, kernel
from ._scratch import scratch
from ._simd.attention_plan import BACKWARD_QUERIES, QUERIES, plan_backward, plan_forward
from ._simd.attention_rows import softmax_gradient_rows, softmax_rows
from ._simd.blocks import causal_product
from ._simd.norm_spans import dot_span
from ._simd.packing import pack_panel
from ._simd.softmax_spans import exp_span, max_span
from ._simd.spans import dropout_span, scale_span, zero_span
from ._simd.tiles import lanes_of, product, product_address
from ._threads import thread_count
from .dropout import mask_numbers, row_hash


@implements(contract.attention_forward)
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    # (B,T,3C) -> (B,T,C), (B,NH,T)
    dtype = out.dtype
    plan = plan_forward(*out.shape, lse.shape[1], dtype, thread_count())
    _forward(
        out, lse, qkv, np.uint64(dropout_key), dropout_rate > 0.0, *mask_numbers(dropout_rate), product_address(dtype),
        scratch("whole heads", plan.panels, dtype),  # the backward pass has other use for it
        scratch("scores", plan.scores, dtype),
        scratch("rows", plan.rows, dtype),
        *plan[3:],
    )  # fmt: skip


@implements(contract.attention_backward)
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array, *, dropout_rate: float = 0.0, dropout_key: int = 0
) -> None:
    # (B,T,C), (B,T,3C), (B,T,C), (B,NH,T) -> (B,T,3C)
    dtype = out.dtype
    plan = plan_backward(*out.shape, lse.shape[1], dtype, thread_count())
    _backward(
        dqkv.reshape(-1),  # the sums of queries' gradients may be made in either of two arrays, of as many dimensions
        dout, qkv, out, lse, np.uint64(dropout_key), dropout_rate > 0.0, *mask_numbers(dropout_rate),
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
        *plan[6:],
    )  # fmt: skip


@implements(contract.attention_weights)
def attention_weights(weights: Array, qkv: Array, first: int = 0) -> None:
    # (B,T,3C) -> (B,NH,R,T)
    R, T = weights.shape[2:]
    contract.check_rows(T, R, first)
    _weights(weights, qkv, first)


# ------------------------------------------------------------------------------------------------------------- kernels


@kernel()
def _forward(
    out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply, panels, all_scores, all_state,
    by_head, k_width, v_width, v_rows, keys,
):  # fmt: skip
    (B, T, C), NH = out.shape, lse.shape[1]
    k_count, q_blocks = (T + k_width - 1) // k_width, (T + QUERIES - 1) // QUERIES
    if not by_head:
        for item in numba.prange(B * NH * k_count):
            bh, p = item // k_count, item % k_count
            _pack_keys_and_values(bh, bh, p, p + 1, qkv, T, C, NH, k_width, v_width, panels)
    items = B * NH if by_head else B * NH * q_blocks
    for item in numba.prange(items):
        if by_head:
            _forward_head(
                item, numba.get_thread_id(), out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply,
                panels, all_scores, all_state, k_width, v_width, v_rows, keys,
            )  # fmt: skip
        else:
            turn = item % q_blocks
            _forward_block(
                item // q_blocks, item // q_blocks,
                turn // 2 if turn % 2 == 0 else q_blocks - 1 - turn // 2,  # light and heavy blocks in turn
                numba.get_thread_id(), out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply,
                panels, all_scores, all_state, k_width, v_width, v_rows, keys,
            )  # fmt: skip


@device
def _pack_keys_and_values(bh, slot, first, last, qkv, T, C, NH, k_width, v_width, panels):
    """The keys of some panels transposed, and as many values, of one head, into a slot of `panels`: all of its keys, in
    panels of k_width tokens, then all of its values, in panels of v_width channels."""
    HS = C // NH
    v_count = (HS + v_width - 1) // v_width
    k_at, v_at = _slot(slot, T, HS, k_width, v_width)
    for p in range(first, last):
        j, columns = p * k_width, min(k_width, T - p * k_width)
        at = (bh // NH * T + j) * 3 * C + bh % NH * HS
        pack_panel(panels, k_at + j * HS, k_width, qkv, at + C, 1, 3 * C, HS, columns)
        for c in range(v_count):
            pack_panel(
                panels, v_at + (c * T + j) * v_width, v_width,
                qkv, at + 2 * C + c * v_width, 3 * C, 1, columns, min(v_width, HS - c * v_width),
            )  # fmt: skip


@device
def _slot(slot, T, HS, k_width, v_width):
    """Where the keys and the values of a head begin."""
    k_size = (T + k_width - 1) // k_width * k_width * HS
    k_at = slot * (k_size + (HS + v_width - 1) // v_width * v_width * T)
    return k_at, k_at + k_size


@device
def _forward_head(
    bh, thread, out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply, panels, all_scores, all_state,
    k_width, v_width, v_rows, keys,
):  # fmt: skip
    """All queries of one head, by one thread."""
    T, C = out.shape[1:]
    _pack_keys_and_values(
        bh, thread, 0, (T + k_width - 1) // k_width, qkv, T, C, lse.shape[1], k_width, v_width, panels
    )
    for q_block in range((T + QUERIES - 1) // QUERIES):
        _forward_block(
            bh, thread, q_block, thread, out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply,
            panels, all_scores, all_state, k_width, v_width, v_rows, keys,
        )  # fmt: skip


@device
def _forward_block(
    bh, slot, q_block, thread, out, lse, qkv, key, use_dropout, threshold, keep_scale, multiply,
    panels, all_scores, all_state, k_width, v_width, v_rows, keys,
):  # fmt: skip
    """One block of queries of a head packed in a slot: over the blocks of keys up to the last that it may look at."""
    (T, C), NH = out.shape[1:], lse.shape[1]
    HS = C // NH
    real = out.dtype.type
    scale = real(1.0 / math.sqrt(HS))
    v_count = (HS + v_width - 1) // v_width
    k_at, v_at = _slot(slot, T, HS, k_width, v_width)
    q0 = q_block * QUERIES
    rows = min(QUERIES, T - q0)
    q_at = (bh // NH * T + q0) * 3 * C + bh % NH * HS
    o_at = (bh // NH * T + q0) * C + bh % NH * HS
    s_at = thread * QUERIES * keys
    # of each row: its largest score so far, the sum of its weights, and how much less now counts what was summed before
    largest = thread * 3 * QUERIES
    total, shrink = largest + QUERIES, largest + 2 * QUERIES
    lanes = lanes_of(all_scores)
    for k0 in range(0, q0 + rows, keys):
        width = min(keys, q0 + rows - k0)
        # scores = q . k
        for j in range(0, width, k_width):
            causal_product(
                multiply, qkv, q_at, 3 * C, panels, k_at + (k0 + j) * HS, k_width, HS,
                all_scores, s_at + j, keys, rows, k0 + j - q0,
            )  # fmt: skip
        # weights = exp(scores - largest)
        for r in range(0, rows, lanes):
            number, seen, diagonal = min(lanes, rows - r), min(keys, q0 + r - k0), q0 + r < k0 + keys
            softmax_rows(
                all_scores, s_at + r * keys, keys, number, seen, diagonal, _cleared(v_rows, lanes, keys - seen),
                scale, k0 == 0, all_state, largest + r, total + r, shrink + r,
            )  # fmt: skip
            for i in range(r, r + number):
                if k0 > 0 and all_state[shrink + i] != 1:
                    scale_span(out, o_at + i * C, HS, all_state[shrink + i])
            if use_dropout:
                _drop_rows(
                    all_scores, s_at + r * keys, keys, number, seen, diagonal, key, bh * T + q0 + r, k0,
                    threshold, keep_scale,
                )  # fmt: skip
        # out += weights v
        step = v_rows if k0 + width > q0 + 1 else rows  # on the diagonal, tile by tile: each has keys of its own
        for r in range(0, rows, step):
            number, depth = min(step, rows - r), min(width, q0 + r + step - k0)
            for c in range(v_count):
                at = o_at + r * C + c * v_width
                product(
                    multiply, all_scores, s_at + r * keys, keys, 1,
                    panels, v_at + (c * T + k0) * v_width, v_width, depth,
                    out, at, C, number, min(v_width, HS - c * v_width), out, at, C, k0 > 0, out, 0, 0, False,
                )  # fmt: skip
    for r in range(rows):
        lse[bh // NH, bh % NH, q0 + r] = all_state[largest + r] * scale + real(math.log(all_state[total + r]))
        scale_span(out, o_at + r * C, HS, real(1) / all_state[total + r])


@device
def _drop_rows(X, x, x_row, rows, seen, diagonal, key, mask_row, k0, threshold, keep_scale):
    """Dropout of some rows of weights, or of their gradients: `seen` of each, and on the diagonal one more for each."""
    for i in range(rows):
        n, at = seen + (i + 1 if diagonal else 0), x + i * x_row
        bits = row_hash(key, mask_row + i)
        dropout_span(X, at, X, at, X, 0, False, n, bits, k0, threshold, keep_scale)


@device
def _cleared(tile_rows, lanes, columns):
    """How many vectors beyond that of the diagonal are set to 0, of the `columns` that there are from there on: as far
    as a row's tile will read, which may end so many rows below."""
    return min((tile_rows + lanes - 2) // lanes, columns // lanes - 1)


@kernel()
def _backward(
    dqkv, dout, qkv, out, lse, key, use_dropout, threshold, keep_scale, multiply,
    dqueries, all_scores, all_dscores, k_panels, v_panels, k_rows, q_rows, dout_rows, means,
    parts, k_width, c_width, c_rows, keys,
):  # fmt: skip
    (B, T, C), NH = out.shape, lse.shape[1]
    for item in numba.prange(B * NH * parts):
        _backward_part(
            item, numba.get_thread_id(), dqkv, dout, qkv, out, lse, T, C, NH, parts, k_width, c_width, c_rows, keys,
            key, use_dropout, threshold, keep_scale,
            multiply, dqueries, all_scores, all_dscores, k_panels, v_panels, k_rows, q_rows, dout_rows, means,
        )  # fmt: skip
    if parts > 1:
        for row in numba.prange(B * NH * T):
            _add_parts(row, dqkv, dqueries, parts, T, C, NH)


@device
def _add_parts(row, dqkv, dqueries, parts, T, C, NH):
    """dq, from what the parts of the head found."""
    HS, bh, t = C // NH, row // T, row % T
    at = (bh // NH * T + t) * 3 * C + bh % NH * HS
    for part in range(parts):
        part_at = ((bh * parts + part) * T + t) * HS
        for c in range(HS):
            dqkv[at + c] = dqueries[part_at + c] + (dqkv[at + c] if part > 0 else 0)


@device
def _backward_part(
    item, thread, dqkv, dout, qkv, out, lse, T, C, NH, parts, k_width, c_width, c_rows, keys,
    key, use_dropout, threshold, keep_scale,
    multiply, dqueries, all_scores, all_dscores, k_panels, v_panels, k_rows, q_rows, dout_rows, means,
):  # fmt: skip
    """Every `parts`-th block of keys of one head: over the blocks of queries from the first that may look at it."""
    bh, part, HS = item // parts, item % parts, C // NH
    c_count = (HS + c_width - 1) // c_width
    kt_at, k_at = thread * keys * HS, thread * keys * c_count * c_width
    if parts > 1:
        zero_span(dqueries, item * T * HS, min(T, part * keys) * HS)  # queries that look at none of the part's keys
    for t in range(part * keys, T):  # of dweights, under the weights
        at = (bh // NH * T + t) * C + bh % NH * HS
        means[thread * T + t] = dot_span(dout, at, out, at, HS)
    for k0 in range(part * keys, T, parts * keys):
        k_number = min(keys, T - k0)
        k_start = (bh // NH * T + k0) * 3 * C + C + bh % NH * HS
        v_start = k_start + C
        for j in range(0, k_number, k_width):
            columns = min(k_width, k_number - j)
            pack_panel(k_panels, kt_at + j * HS, k_width, qkv, k_start + j * 3 * C, 1, 3 * C, HS, columns)
            pack_panel(v_panels, kt_at + j * HS, k_width, qkv, v_start + j * 3 * C, 1, 3 * C, HS, columns)
        for c in range(c_count):
            pack_panel(
                k_rows, k_at + c * keys * c_width, c_width, qkv, k_start + c * c_width, 3 * C, 1, k_number,
                min(c_width, HS - c * c_width),
            )  # fmt: skip
        first = k0 // BACKWARD_QUERIES * BACKWARD_QUERIES
        for q0 in range(first, T, BACKWARD_QUERIES):
            _backward_block(
                bh, q0, k0, k_number, part, parts, thread, dqkv, dout, qkv, out, lse, T, C, NH,
                k_width, c_width, c_rows, keys, key, use_dropout, threshold, keep_scale,
                multiply, dqueries, all_scores, all_dscores, k_panels, v_panels, k_rows, q_rows, dout_rows, means,
            )  # fmt: skip


@device
def _backward_block(
    bh, q0, k0, k_number, part, parts, thread, dqkv, dout, qkv, out, lse, T, C, NH, k_width, c_width, c_rows, keys,
    key, use_dropout, threshold, keep_scale,
    multiply, dqueries, all_scores, all_dscores, k_panels, v_panels, k_rows, q_rows, dout_rows, means,
):  # fmt: skip
    """What one block of queries and one block of keys add to the gradients of both."""
    HS = C // NH
    real = out.dtype.type
    scale = real(1.0 / math.sqrt(HS))
    c_count = (HS + c_width - 1) // c_width
    rows = min(BACKWARD_QUERIES, T - q0)
    width = min(k_number, q0 + rows - k0)  # keys that some query of the block may look at
    q_start = (bh // NH * T + q0) * 3 * C + bh % NH * HS
    o_start = (bh // NH * T + q0) * C + bh % NH * HS
    k_start = (bh // NH * T + k0) * 3 * C + C + bh % NH * HS
    s_at = thread * BACKWARD_QUERIES * keys
    kt_at, k_at = thread * keys * HS, thread * keys * c_count * c_width
    q_at = thread * BACKWARD_QUERIES * c_count * c_width
    for c in range(c_count):
        columns, packed = min(c_width, HS - c * c_width), q_at + c * BACKWARD_QUERIES * c_width
        pack_panel(q_rows, packed, c_width, qkv, q_start + c * c_width, 3 * C, 1, rows, columns)
        pack_panel(dout_rows, packed, c_width, dout, o_start + c * c_width, C, 1, rows, columns)
    # scores = q . k;  dweights = dout . v
    for j in range(0, width, k_width):
        packed, at, below = kt_at + j * HS, s_at + j, k0 + j - q0
        causal_product(
            multiply, qkv, q_start, 3 * C, k_panels, packed, k_width, HS, all_scores, at, keys, rows, below
        )
        causal_product(
            multiply, dout, o_start, C, v_panels, packed, k_width, HS, all_dscores, at, keys, rows, below
        )
    # weights = exp(scores - lse);  dscores = weights * (dweights - their mean) / sqrt(HS)
    lanes = lanes_of(all_scores)
    for r in range(0, rows, lanes):
        number, seen, diagonal = min(lanes, rows - r), min(keys, q0 + r - k0), q0 + r < k0 + keys
        at = s_at + r * keys
        if use_dropout:
            _drop_rows(all_dscores, at, keys, number, seen, diagonal, key, bh * T + q0 + r, k0, threshold, keep_scale)
        softmax_gradient_rows(
            all_scores, at, all_dscores, at, keys, number, seen, diagonal, _cleared(c_rows, lanes, keys - seen), scale,
            lse, bh * T + q0 + r, means, thread * T + q0 + r,
        )  # fmt: skip
        if use_dropout:
            _drop_rows(all_scores, at, keys, number, seen, diagonal, key, bh * T + q0 + r, k0, threshold, keep_scale)
    # On the diagonal, tile by tile: queries before a key and keys behind a query give nothing.
    diagonal = k0 + width > q0
    step = c_rows if diagonal else width
    for j in range(0, width, step):
        number, r = min(step, width - j), max(0, k0 + j - q0)
        seen = q0 > k0 + j  # by queries before these
        for c in range(c_count):
            columns, packed = min(c_width, HS - c * c_width), q_at + (c * BACKWARD_QUERIES + r) * c_width
            dk = k_start + j * 3 * C + c * c_width
            dv, at = dk + C, s_at + r * keys + j
            # dv += weights^T dout;  dk += dscores^T q
            product(
                multiply, all_scores, at, 1, keys, dout_rows, packed, c_width, rows - r,
                dqkv, dv, 3 * C, number, columns, dqkv, dv, 3 * C, seen, dqkv, 0, 0, False,
            )  # fmt: skip
            product(
                multiply, all_dscores, at, 1, keys, q_rows, packed, c_width, rows - r,
                dqkv, dk, 3 * C, number, columns, dqkv, dk, 3 * C, seen, dqkv, 0, 0, False,
            )  # fmt: skip
    # dq goes to where it belongs at once, or to the sum of the part
    dq_rows, dq_start, dq_stride = (dqkv, q_start, 3 * C) if parts == 1 else (
        dqueries, ((bh * parts + part) * T + q0) * HS, HS
    )  # fmt: skip
    step, seen = c_rows if diagonal else rows, k0 > part * keys
    for r in range(max(0, k0 - q0), rows, step):
        number, depth = min(step, rows - r), min(width, q0 + r + step - k0)
        for c in range(c_count):
            columns, dq = min(c_width, HS - c * c_width), dq_start + r * dq_stride + c * c_width
            # dq += dscores k
            product(
                multiply, all_dscores, s_at + r * keys, keys, 1, k_rows, k_at + c * keys * c_width, c_width, depth,
                dq_rows, dq, dq_stride, number, columns, dq_rows, dq, dq_stride, seen, dq_rows, 0, 0, False,
            )  # fmt: skip


@kernel()
def _weights(weights, qkv, first):
    B, NH, R, T = weights.shape
    C = qkv.shape[2] // 3
    HS = C // NH
    real = weights.dtype.type
    scale = real(1.0 / math.sqrt(HS))
    for item in numba.prange(B * NH * R):
        b, h, r = item // (NH * R), item // R % NH, item % R
        n, at = first + r + 1, item * T
        for j in range(n):
            query = (b * T + first + r) * 3 * C + h * HS
            weights[b, h, r, j] = dot_span(qkv, query, qkv, (b * T + j) * 3 * C + C + h * HS, HS)
        total = exp_span(weights, at, weights, at, n, scale, max_span(weights, at, n))
        for j in range(n):
            weights[b, h, r, j] /= total
        weights[b, h, r, n:] = 0
