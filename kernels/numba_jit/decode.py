"""Generation with a key/value cache: only the newest token goes through the transformer, many tokens in one call.

A token reads every weight once and computes little, so what counts is how fast the weights arrive. Each thread takes
some heads and some groups of hidden units, always the same ones, and reads their weights as one stream, mostly from its
own cache. A token that stands in two windows goes through both at once, as two rows, for little more than one costs.

A token takes tens of microseconds, too few to start threads for each part of it. They meet at barriers instead, two in
each layer; see `_runtime.team`. What all of them need, such as the norms, each thread computes for itself. Each of them
also adds up the branches of all heads and groups, in their order, so no number of threads changes a bit.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core import types

from .. import contract
from ..contract import NORM_EPS, Activation, Array, Norm, Precision, implements
from ..windows import rings, stride
from ._decoding import (
    PLACES,
    Call,
    Layers,
    Memory,
    Model,
    Positions,
    Sampling,
    branch_of,
    cache_of,
    places_of,
    work_of,
    work_size,
)
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
    join,
    members,
    share_of,
)
from ._runtime.threads import thread_count
from ._simd.elementwise import add, copy, gelu, relu, scale
from ._simd.exponential import LOG2E
from ._simd.norm_rows import normalize_row
from ._simd.normal import gelu_erf
from ._simd.records import plain, record, record_address, run, type_of
from ._simd.reductions import maximum
from ._simd.rotation import rotate
from ._simd.rows import dots, rows_product, rows_product_address
from ._simd.softmax import exp_into
from ._simd.views import block
from ._simd.word_rows import keep, round_for
from ._simd.words import is_rounded
from .linear import ACTIVATIONS, GELU, GELU_ERF
from .sampling import draw as draw_token
from .sampling import uniform

WORTH = 2_000_000  # weights that a call reads for each thread it starts, at least
ALONE = 8  # calls that one thread makes alone after another program has taken a core from the team
HEAD_ROWS = 16  # of the head's matrix: the logits are shared out in such pieces
INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
DISMISSED, STOPPED = 1, 2  # messages to the team; STOPPED + n: the logits after n tokens are not finite
_alone = 0  # calls that one thread still makes alone


@implements(contract.decode_tokens)
def decode_tokens(
    drawn: Array, logits: Array, keys: Array, values: Array, token: int, index: int,
    token_table: Array, position_table: Array | None,
    ln_1_weight: Array, ln_1_bias: Array | None, qkv_weight: Array, qkv_bias: Array | None,
    attn_proj_weight: Array, attn_proj_bias: Array | None,
    ln_2_weight: Array, ln_2_bias: Array | None, fc_weight: Array, fc_bias: Array | None,
    mlp_proj_weight: Array, mlp_proj_bias: Array | None,
    ln_f_weight: Array, ln_f_bias: Array | None, head: Array,
    cosines: Array | None = None, sines: Array | None = None,
    *, norm: Norm, activation: Activation, temperature: float, top_k: int, top_p: float, key: int, draw: int,
    windows: tuple[int, ...] = (), residual: bool = True, precision: Precision = "float32",
) -> int:  # fmt: skip
    # keys and values (K,L,NH,S,HS), weights (L,...) -> drawn (D,), logits (V,)
    global _alone
    contract.check_decoding(keys, (position_table, cosines, sines), len(token_table), token, index)
    contract.check_windows(keys.shape[1], windows)
    (V, C), (L, NH, S, HS), (G, M), dtype = head.shape, keys.shape[1:], mlp_proj_weight.shape[1:3], logits.dtype

    def given(array: Array | None, *shape: int) -> Array:
        return _zeros(shape, dtype) if array is None else array

    layers = Layers(
        ln_1_weight, given(ln_1_bias, L, C), qkv_weight, given(qkv_bias, L, NH, 3 * HS),
        attn_proj_weight, given(attn_proj_bias, L, C),
        ln_2_weight, given(ln_2_bias, L, C), fc_weight, given(fc_bias, L, G, M),
        mlp_proj_weight, given(mlp_proj_bias, L, C),
    )  # fmt: skip
    positions = Positions(
        given(position_table, 1, C), given(cosines, 1, 1), given(sines, 1, 1), int(cosines is not None), S, stride(S),
        _rings(windows, L, S),
    )  # fmt: skip
    model = Model(
        token_table, positions, layers, ln_f_weight, given(ln_f_bias, C), head,
        int(norm == "post"), ACTIVATIONS[activation], int(residual),
    )  # fmt: skip
    sampling = Sampling(float(temperature), int(top_k), float(top_p), np.uint64(key), int(draw))

    weights = L * C * (4 * NH * HS + 2 * G * M) + V * C
    threads = max(1, min(thread_count(), drawn.size * weights // WORTH))
    if threads > 1 and _alone > 0:
        threads, _alone = 1, _alone - 1
    team, rows, size = scratch("team", TEAM_SIZE, INT64), (NH + G) * PLACES, work_size(C, HS, S, M, dtype)
    team[:TEAM_SIZE] = 0
    memory = Memory(
        team, scratch("heap", V, INT64), scratch("weights", V, FLOAT64),
        scratch("branches", rows * C, dtype)[: rows * C].reshape(rows, C),
        scratch("work", threads * size, dtype)[: threads * size].reshape(threads, size),
    )  # fmt: skip
    call = Call(
        drawn, logits, keys, values, int(token), int(index), model, sampling, memory,
        rows_product_address(head.dtype), threads,
    )  # fmt: skip
    _launch(_member_address(call), plain(call), threads)
    if team[DELAYED] > 0 or team[MEMBERS] < threads:
        _alone = ALONE
    message = int(team[MESSAGE])
    return message - STOPPED if message >= STOPPED else drawn.size


@functools.lru_cache(32)
def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Stands for an array that is not given."""
    return np.zeros(shape, dtype)


@functools.lru_cache(32)
def _rings(windows: tuple[int, ...], layers: int, size: int) -> Array:
    return np.array(rings(windows, layers, size), np.int64)


# ------------------------------------------------------------------------------------------------------------- kernels

_members: dict[tuple[np.dtype[Any], np.dtype[Any]], int] = {}


def _member_address(call: Call) -> int:
    """The address of the machine code of `_member`, which is compiled once for each dtype and precision."""
    dtypes = call.logits.dtype, call.model.head.dtype
    if dtypes not in _members:
        _members[dtypes] = int(c_function(types.void(type_of(call)))(_member).address)
    return _members[dtypes]


@kernel()
def _launch(member, values, threads):
    address = record_address(values)
    if threads == 1:
        run(member, address)
    else:
        for _ in numba.prange(threads):
            run(member, address)


def _member(call):
    """What one thread does, for all tokens."""
    model, team = call.model, call.memory.team
    rank = join(team, call.threads)
    if rank < 0:
        return
    size, token, (V, C), S = members(team), call.token, (model.head.rows, model.head.columns), model.positions.S
    work = record(work_of(call.memory.work[rank], C, call.keys.columns, S, model.layers.fc_bias.columns))
    for number in range(call.drawn.size):
        places = places_of(call.first_index + number, model.positions)
        _read(number, token, places, call, work, rank, size)

        # logits = head ln_f(x)
        normed = _norm(work.normed[:1], work.x[:1], (model.ln_f_weight, model.ln_f_bias))
        round_for(normed[0], model.head)
        first, last = share_of((V + HEAD_ROWS - 1) // HEAD_ROWS, rank, size)
        start, end = first * HEAD_ROWS, last * HEAD_ROWS
        dots(call.logits[start:end], model.head[start:end], normed[0])
        barrier(team, size, False)
        if rank == 0:
            _draw(number, call, size)
        barrier(team, size, True)  # drawing from a large vocabulary takes longer than any delay
        message = atomic_load(team, MESSAGE)
        if message >= STOPPED or (message == DISMISSED and rank > 0):
            return
        if message == DISMISSED:
            size = 1
        token = call.drawn[number]


@device
def _draw(number, call, size):
    """Draw token `number` of the call; tell the team if it is dismissed or has to stop."""
    team, heap, weights, how = call.memory.team, call.memory.heap, call.memory.weights, call.sampling
    noise = uniform(how.key, how.draw + number)
    token = draw_token(call.logits, heap, weights, how.temperature, how.top_k, how.top_p, noise)
    if token < 0:
        atomic_add(team, MESSAGE, STOPPED + number - atomic_load(team, MESSAGE))  # which may be DISMISSED
    else:
        call.drawn[number] = token
        if size > 1 and atomic_load(team, DELAYED) > 0:
            atomic_add(team, MESSAGE, DISMISSED)


@device
def _read(number, token, places, call, work, rank, size):
    """Take token `number` of the call through all layers: x (rows,C) is its stream, a row for each of its places."""
    model, layers, team, branches = call.model, call.model.layers, call.memory.team, call.memory.branches
    L, post = layers.ln_1_weight.rows, model.post
    NH, G = layers.qkv_bias.rows // L, layers.fc_bias.rows // L

    # x = token_table[token] + position_table[place]
    x = work.x[: places.rows]
    for r in range(x.rows):
        copy(x[r], model.token_table[token])
        if not model.positions.rotary:
            add(x[r], x[r], model.positions.table[places.place - r * places.stride])
    for layer in range(L):
        ln_1 = layers.ln_1_weight[layer], layers.ln_1_bias[layer]
        ln_2 = layers.ln_2_weight[layer], layers.ln_2_bias[layer]
        normed = _operand(work.normed[: x.rows], x, ln_1, post, layers.qkv_weight)
        if layer == L - 1:
            x = x[:1]  # what the last layer adds for the next window is never used

        # x = x + attn_proj_bias + the branches of all heads
        first, last = share_of(NH, rank, size)
        for h in range(first, last):
            _head(branch_of(branches, h, x.rows), normed, layer * NH + h, number, places, call, work)
        barrier(team, size, False)
        _add_branches(x, branches[: NH * PLACES], layers.attn_proj_bias[layer], model.residual)
        if post:
            _norm(x, x, ln_1)
        normed = _operand(work.normed[: x.rows], x, ln_2, post, layers.fc_weight)

        # x = x + mlp_proj_bias + the branches of all groups of hidden units
        first, last = share_of(G, rank, size)
        for g in range(first, last):
            _group(branch_of(branches, NH + g, x.rows), normed, layer * G + g, call, work)
        barrier(team, size, False)
        _add_branches(x, branches[NH * PLACES :], layers.mlp_proj_bias[layer], model.residual)
        if post:
            _norm(x, x, ln_2)


@device
def _head(branch, normed, head, number, places, call, work):
    """What a head adds to the stream; `head` counts the heads of all layers."""
    multiply, layers, positions, real = call.multiply, call.model.layers, call.model.positions, normed.dtype.type
    qkv, attended = work.qkv[: normed.rows], work.attended[: branch.rows]
    C, HS, S = normed.columns, attended.columns, positions.S
    size = positions.rings[head // (layers.qkv_bias.rows // layers.ln_1_weight.rows)]

    # qkv = normed qkv_weight + qkv_bias
    rows_product(multiply, qkv, normed, block(layers.qkv_weight, head, C))
    for r in range(qkv.rows):
        add(qkv[r], qkv[r], layers.qkv_bias[head])
        q, k, v = qkv[r][:HS], qkv[r][HS : 2 * HS], qkv[r][2 * HS :]
        if positions.rotary:
            rotate(qkv[r][: 2 * HS], positions.cosines[number], positions.sines[number], real(1))
        round_for(qkv[r], call.keys)
        window, place = places.window + r, places.place - r * places.stride
        k_cache, v_cache = cache_of(call.keys, window, head, S), cache_of(call.values, window, head, S)
        newest, seen = place % size, min(place + 1, size)  # in the layer's ring
        keep(k_cache[newest], k)
        keep(v_cache[newest], v)
        if r < attended.rows:
            k_seen, v_seen = k_cache[:seen], v_cache[:seen]
            # scores = q k^T
            scores = weights = work.scores[:, :seen]
            dots(scores[0], k_seen, q)
            # weights = exp((scores - largest) / sqrt(HS)), in their place
            factor, largest = real(1.0 / math.sqrt(HS)), maximum(scores[0])
            if is_rounded(v_seen):  # see `softmax_rows`
                largest = np.ceil(largest * (factor * real(LOG2E))) / (factor * real(LOG2E))
            total = exp_into(weights[0], scores[0], factor, largest)
            round_for(weights[0], v_seen)
            # attended = weights v / total
            rows_product(multiply, attended[r : r + 1], weights, v_seen)
            scale(attended[r], real(1) / total)
            round_for(attended[r], layers.attn_proj_weight)

    # branch = attended attn_proj_weight
    rows_product(multiply, branch, attended, block(layers.attn_proj_weight, head, HS))


@device
def _group(branch, normed, group, call, work):
    """What a group of hidden units adds to the stream; `group` counts the groups of all layers."""
    multiply, layers = call.multiply, call.model.layers
    hidden = work.hidden[: normed.rows]

    # hidden = activation(normed fc_weight + fc_bias)
    rows_product(multiply, hidden, normed, block(layers.fc_weight, group, normed.columns))
    for r in range(hidden.rows):
        add(hidden[r], hidden[r], layers.fc_bias[group])
        if call.model.activation == GELU:
            gelu(hidden[r], hidden[r])
        elif call.model.activation == GELU_ERF:
            gelu_erf(hidden[r], hidden[r])
        else:
            relu(hidden[r], hidden[r])
        round_for(hidden[r], layers.mlp_proj_weight)

    # branch = hidden mlp_proj_weight
    rows_product(multiply, branch, hidden, block(layers.mlp_proj_weight, group, hidden.columns))


@device
def _add_branches(x, branches, bias, residual):
    """x = x + bias + each branch, in their order; without the residual, x = bias + each branch"""
    for r in range(x.rows):
        if residual:
            add(x[r], x[r], bias)
        else:
            copy(x[r], bias)
        for first in range(0, branches.rows, PLACES):
            add(x[r], x[r], branches[first + r])


@device
def _operand(out, x, ln, post, weight):
    """What a layer multiplies with `weight`: x, or with `post` 0 its layer normalization, rounded if `weight` is."""
    if not post:
        _norm(out, x, ln)
    elif is_rounded(weight):
        for r in range(x.rows):
            copy(out[r], x[r])
    else:
        return x
    for r in range(x.rows):
        round_for(out[r], weight)
    return out


@device
def _norm(out, x, ln):
    """out = layer normalization of x, row by row; returns out."""
    weight, bias = ln
    for r in range(x.rows):
        normalize_row(out[r], x[r], weight, bias, x.dtype.type(NORM_EPS))
    return out
