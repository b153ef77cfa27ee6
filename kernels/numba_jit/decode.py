"""Generation: many tokens in one call, with all threads at work on each of them.

A token reads every weight once, and hardly computes: what counts is how fast the weights come. So each thread takes
some heads and some groups of hidden units and always the same ones, and reads their weights as one stream, as far as
possible out of its own cache. A token that stands in two windows goes through both at once, for the price of one.

A token takes tens of microseconds: too few to start threads for each part of it. They meet at barriers instead, twice
a layer; see `_runtime.team`. What every part needs, such as the norms, each thread computes for itself. The shares of
heads and groups are added in their order by every thread: so the bits do not depend on how many there are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core import types

from .. import contract
from ..contract import NORM_EPS, Activation, Array, Norm, implements
from ..memory import CACHE_LINE
from ..windows import stride
from ._runtime.jit import c_function, device, kernel
from ._runtime.scratch import scratch
from ._runtime.team import (
    DELAYED,
    MEMBERS,
    MESSAGE,
    TEAM_SIZE,
    atomic_add,
    atomic_load,
    barrier,
    calls,
    join,
    members,
    share_of,
)
from ._runtime.threads import thread_count
from ._simd.elementwise import add, gelu, relu, scale
from ._simd.norm_rows import normalize_one
from ._simd.reductions import dot, four_dots, maximum
from ._simd.rows import rows_product, rows_product_address
from ._simd.softmax import exp_into
from ._simd.views import matrix, row_of
from .dropout import row_hash
from .linear import ACTIVATIONS, GELU
from .sampling import draw as draw_token

WORTH = 2_000_000  # weights to read in a call, at least, for each thread that is started
ALONE = 8  # calls for which a thread works alone after others had no core of their own: another program is running
HEAD_ROWS = 16  # of the head's matrix, for which a thread makes the logits at a time
PLACES = 2  # of a token, at most: so many rows go through the transformer at once
INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
_alone = 0  # calls that one thread still makes alone
DISMISSED, STOPPED = 1, 2  # messages to the team; STOPPED + n: the logits after n tokens are not finite


@implements(contract.decode_tokens)
def decode_tokens(
    drawn: Array, logits: Array, keys: Array, values: Array, token: int, index: int,
    token_table: Array, position_table: Array,
    ln_1_weight: Array, ln_1_bias: Array | None, qkv_weight: Array, qkv_bias: Array | None,
    attn_proj_weight: Array, attn_proj_bias: Array | None,
    ln_2_weight: Array, ln_2_bias: Array | None, fc_weight: Array, fc_bias: Array | None,
    mlp_proj_weight: Array, mlp_proj_bias: Array | None,
    ln_f_weight: Array, ln_f_bias: Array | None, head: Array,
    *, norm: Norm, activation: Activation, temperature: float, top_k: int, top_p: float, key: int, draw: int,
) -> int:  # fmt: skip
    # keys and values (2,L,NH,S,HS), weights (L,...) -> drawn (D,), logits (V,)
    global _alone
    contract.check_decoding(len(token_table), token, index)
    (V, C), (L, NH, S, HS), (G, M), dtype = head.shape, keys.shape[1:], mlp_proj_weight.shape[1:3], logits.dtype
    biases = (ln_1_bias, qkv_bias, attn_proj_bias, ln_2_bias, fc_bias, mlp_proj_bias, ln_f_bias)
    zeros = np.zeros(L * max(C, 3 * NH * HS, G * M) if any(bias is None for bias in biases) else 0, dtype)
    count = L * C * (4 * NH * HS + 2 * G * M) + V * C
    threads = max(1, min(thread_count(), drawn.size * count // WORTH))
    if threads > 1 and _alone > 0:
        threads, _alone = 1, _alone - 1
    lines = 2 * CACHE_LINE // dtype.itemsize  # elements of two cache lines, which some CPUs fetch together
    own = -(-(PLACES * (2 * C + 4 * HS + M) + S) // lines) * lines
    state = scratch("team", TEAM_SIZE, INT64)
    state[:TEAM_SIZE] = 0
    arrays = (
        drawn, logits, keys, values, token_table, position_table,
        *(zeros if array is None else array for array in (
            ln_1_weight, ln_1_bias, qkv_weight, qkv_bias, attn_proj_weight, attn_proj_bias,
            ln_2_weight, ln_2_bias, fc_weight, fc_bias, mlp_proj_weight, mlp_proj_bias, ln_f_weight, ln_f_bias,
        )),
        head, state, scratch("heap", V, INT64), scratch("weights", V, FLOAT64),
        scratch("shares", PLACES * (NH + G) * C, dtype), scratch("own", threads * own, dtype),
    )  # fmt: skip
    table = np.array([
        *(array.ctypes.data for array in arrays), rows_product_address(dtype), own, threads,
        drawn.size, token, index, L, NH, HS, S, C, G, M, V, stride(S), norm == "post", ACTIVATIONS[activation],
        _bits(temperature), top_k, _bits(top_p), key - (key >> 63 << 64), draw,
    ], INT64)  # fmt: skip
    _launch(_member_address(dtype), table, logits, threads)
    if state[DELAYED] > 0 or state[MEMBERS] < threads:
        _alone = ALONE
    message = int(state[MESSAGE])
    return message - STOPPED if message >= STOPPED else drawn.size


def _bits(number: float) -> int:
    return int(np.float64(number).view(np.int64))


# ------------------------------------------------------------------------------------------------------------- kernels
# A parallel loop with so many arrays around it would take Numba longer to compile than all that is done in it. So the
# loop is handed a table, and what it calls is compiled by itself.

_INTEGERS = types.CPointer(types.int64)
_signature, _call_member = calls(
    [types.CPointer(types.int32)] + [None] * 20 + [_INTEGERS, _INTEGERS, types.CPointer(types.float64)] + [None] * 2
    + [types.int64] * 17 + [types.float64, types.int64, types.float64, types.uint64, types.int64]
)  # fmt: skip


@kernel()
def _launch(member, table, example, threads):
    if threads == 1:
        _call_member(member, table, example)
    else:
        for _ in numba.prange(threads):
            _call_member(member, table, example)


@functools.cache
def _member_address(dtype: np.dtype[Any]) -> int:
    return int(c_function(_signature(numba.from_dtype(dtype)))(_member).address)


def _member(
    drawn, logits, keys, values, token_table, position_table,
    ln_1_weight, ln_1_bias, qkv_weight, qkv_bias, attn_proj_weight, attn_proj_bias,
    ln_2_weight, ln_2_bias, fc_weight, fc_bias, mlp_proj_weight, mlp_proj_bias, ln_f_weight, ln_f_bias,
    head, team, heap, weights, shares, own, multiply, own_size, threads,
    D, token, index, L, NH, HS, S, C, G, M, V, step, post, activation, temperature, top_k, top_p, key, draw,
):  # fmt: skip
    """What one thread does, for all tokens."""
    rank = join(team, threads)
    if rank < 0:
        return
    size = members(team)
    x = rank * own_size  # in `own`: the stream, its normalisation, and what a head or a group works with
    normed = x + PLACES * C
    work = normed + PLACES * C
    for number in range(D):
        window = max(0, (index + number - S) // step + 1)  # see `kernels.windows`
        place = index + number - window * step
        rows = 2 if place >= step else 1
        for r in range(rows):
            add(
                row_of(own, x + r * C, C), row_of(token_table, token * C, C),
                row_of(position_table, (place - r * step) * C, C),
            )  # fmt: skip
        for layer in range(L):
            inp = x if post else normed
            if not post:
                _norm(own, normed, x, rows, C, ln_1_weight, ln_1_bias, layer * C, work)
            wanted = rows if layer < L - 1 else 1  # what the last layer gives for the next window is of no use
            first, last = share_of(NH, rank, size)
            for h in range(first, last):
                _head(
                    shares, h * PLACES * C, own, inp, work, keys, values, rows, wanted, window, place, step,
                    layer * NH + h, L * NH, HS, S, C, qkv_weight, qkv_bias, attn_proj_weight, multiply,
                )  # fmt: skip
            rows = wanted
            barrier(team, size)
            _add_shares(own, x, rows, C, shares, 0, NH, attn_proj_bias, layer * C)
            if post:
                _norm(own, x, x, rows, C, ln_1_weight, ln_1_bias, layer * C, work)
            else:
                _norm(own, normed, x, rows, C, ln_2_weight, ln_2_bias, layer * C, work)
            first, last = share_of(G, rank, size)
            for g in range(first, last):
                _group(
                    shares, (NH + g) * PLACES * C, own, inp, work, rows, (layer * G + g) * M, C, M, activation,
                    fc_weight, fc_bias, mlp_proj_weight, multiply,
                )  # fmt: skip
            barrier(team, size)
            _add_shares(own, x, rows, C, shares, NH * PLACES * C, G, mlp_proj_bias, layer * C)
            if post:
                _norm(own, x, x, rows, C, ln_2_weight, ln_2_bias, layer * C, work)
        _norm(own, normed, x, 1, C, ln_f_weight, ln_f_bias, 0, work)
        first, last = share_of((V + HEAD_ROWS - 1) // HEAD_ROWS, rank, size)
        v = first * HEAD_ROWS
        _dots(logits, v, own, normed, head, v * C, min(V, last * HEAD_ROWS) - v, C)
        barrier(team, size)
        if rank == 0:
            noise = np.float64(row_hash(key, draw + number) >> np.uint64(11)) / np.float64(1 << 53)
            token = draw_token(logits, V, heap, weights, temperature, top_k, top_p, noise)
            if token < 0:
                atomic_add(team, MESSAGE, STOPPED + number - atomic_load(team, MESSAGE))  # which may be DISMISSED
            else:
                drawn[number] = token
                if size > 1 and atomic_load(team, DELAYED) > 0:
                    atomic_add(team, MESSAGE, DISMISSED)
        barrier(team, size, True)  # drawing from a large vocabulary takes longer than any delay
        message = atomic_load(team, MESSAGE)
        if message >= STOPPED or (message == DISMISSED and rank > 0):
            return
        if message == DISMISSED:
            size = 1
        token = drawn[number]


@device
def _norm(own, out, inp, rows, C, weight, bias, at, work):
    """Layer normalisation of the rows at `inp`, with the weights of a layer, which begin at `at`; `work` is a place for
    what is not kept, mean and rstd."""
    for i in range(inp, inp + rows * C, C):
        eps = type(own[i])(NORM_EPS)
        normalize_one(
            own, out - inp + i, own, work, own, work + 1, own, i, 1, C, weight, at, bias, at, True, eps
        )


@device
def _add_shares(own, x, rows, C, shares, start, parts, bias, at):
    """x += bias + the shares of all parts, in their order."""
    for r in range(rows):
        stream = row_of(own, x + r * C, C)
        add(stream, stream, row_of(bias, at, C))
        for part in range(parts):
            add(stream, stream, row_of(shares, start + (part * PLACES + r) * C, C))


@device
def _head(
    shares, share, own, inp, work, keys, values, rows, wanted, window, place, step, head, heads, HS, S, C,
    qkv_weight, qkv_bias, attn_proj_weight, multiply,
):  # fmt: skip
    """Number `head` of the `heads` of all layers: keys and values of all rows, and what it adds to the first `wanted`
    of them."""
    qkv, attended = work, work + PLACES * 3 * HS
    scores = attended + PLACES * HS
    rows_product(multiply, own, qkv, 3 * HS, own, inp, C, rows, qkv_weight, head * C * 3 * HS, 3 * HS, C, 3 * HS)
    for r in range(rows):
        q, bias, n = qkv + r * 3 * HS, head * 3 * HS, place - r * step + 1
        cache = ((window + r) % 2 * heads + head) * S * HS
        newest = cache + (n - 1) * HS
        add(row_of(keys, newest, HS), row_of(own, q + HS, HS), row_of(qkv_bias, bias + HS, HS))
        add(row_of(values, newest, HS), row_of(own, q + 2 * HS, HS), row_of(qkv_bias, bias + 2 * HS, HS))
        if r < wanted:
            add(row_of(own, q, HS), row_of(own, q, HS), row_of(qkv_bias, bias, HS))
            _dots(own, scores, own, q, keys, cache, n, HS)
            real = type(own[scores])
            seen = row_of(own, scores, n)
            total = exp_into(seen, seen, real(1.0 / math.sqrt(HS)), maximum(seen))
            rows_product(multiply, own, attended + r * HS, 0, own, scores, 0, 1, values, cache, HS, n, HS)
            scale(row_of(own, attended + r * HS, HS), real(1) / total)
    rows_product(multiply, shares, share, C, own, attended, HS, wanted, attn_proj_weight, head * HS * C, C, HS, C)


@device
def _group(
    shares, share, own, inp, work, rows, unit, C, M, activation, fc_weight, fc_bias, mlp_proj_weight, multiply
):
    """One group of hidden units, which begins at `unit` in its layer's."""
    rows_product(multiply, own, work, M, own, inp, C, rows, fc_weight, unit * C, M, C, M)
    for i in range(work, work + rows * M, M):
        hidden = row_of(own, i, M)
        add(hidden, hidden, row_of(fc_bias, unit, M))
        if activation == GELU:
            gelu(hidden, hidden)
        else:
            relu(hidden, hidden)
    rows_product(multiply, shares, share, C, own, work, M, rows, mlp_proj_weight, unit * C, C, M, C)


@device
def _dots(out, o, x, i, rows, r, n, width):
    """The products of a row of `x` with each of n rows that lie one after the other."""
    for j in range(0, n - 3, 4):
        four_dots(row_of(out, o + j, 4), row_of(x, i, width), matrix(rows, r + j * width, 4, width, width))
    for j in range(n - n % 4, n):
        out[o + j] = dot(row_of(x, i, width), row_of(rows, r + j * width, width))
