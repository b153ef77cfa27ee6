"""Generation with a key/value cache: only the newest token goes through the transformer, many tokens in one call.

A token reads every weight once and computes little, so what counts is how fast the weights arrive. Each thread takes
some heads and some groups of hidden units, always the same ones, and reads their weights as one stream, mostly from its
own cache. A token that stands in two windows goes through both at once, as two rows, which costs hardly more than one.

A token takes tens of microseconds, too few to start threads for each part of it. They meet at barriers instead, twice a
layer; see `_runtime.team`. What each of them needs, such as the norms, every thread computes itself. Every thread adds
up the branches of all heads and groups, in their order, so no number of threads changes a bit.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core import types

from .. import contract
from ..contract import NORM_EPS, Activation, Array, Norm, implements
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
from ._simd.decode_memory import PLACES, branch_of, cache_of, places_of, work_of, work_size
from ._simd.elementwise import add, copy, gelu, relu, scale
from ._simd.norm_rows import normalize_one
from ._simd.records import call, flat, record, type_of
from ._simd.reductions import dot, four_dots, maximum
from ._simd.rows import rows_product, rows_product_address
from ._simd.softmax import exp_into
from .linear import ACTIVATIONS, GELU
from .sampling import draw as draw_token
from .sampling import uniform

WORTH = 2_000_000  # weights that a call reads, at least, for each thread that is started
ALONE = 8  # calls that one thread makes alone after another program has taken a core from the team
HEAD_ROWS = 16  # rows of the head's matrix that a thread takes at a time
INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)
DISMISSED, STOPPED = 1, 2  # messages to the team; STOPPED + n: the logits after n tokens are not finite
_alone = 0  # calls that one thread still makes alone


# What a call consists of. The fields are arrays in Python; kernels find views of them, whose rows are all axes but the
# last: see `_simd.records`.


class Layers(NamedTuple):
    """The weights of all layers, by heads and by groups of hidden units."""

    ln_1_weight: Any  # (L,C)
    ln_1_bias: Any  # (L,C)
    qkv_weight: Any  # (L,NH,C,3*HS)
    qkv_bias: Any  # (L,NH,3*HS)
    attn_proj_weight: Any  # (L,NH,HS,C)
    attn_proj_bias: Any  # (L,C)
    ln_2_weight: Any  # (L,C)
    ln_2_bias: Any  # (L,C)
    fc_weight: Any  # (L,G,C,M)
    fc_bias: Any  # (L,G,M)
    mlp_proj_weight: Any  # (L,G,M,C)
    mlp_proj_bias: Any  # (L,C)


class Model(NamedTuple):
    """A transformer."""

    token_table: Any  # (V,C)
    position_table: Any  # (S,C)
    layers: Any
    ln_f_weight: Any  # (C,)
    ln_f_bias: Any  # (C,)
    head: Any  # (V,C)
    post: int  # 1 if norms come after the branches
    activation: int


class Sampling(NamedTuple):
    """How tokens are drawn."""

    temperature: float
    top_k: int
    top_p: float
    key: np.uint64
    draw: int


class Memory(NamedTuple):
    """What the threads work in."""

    team: Any  # (TEAM_SIZE,) int64
    heap: Any  # (V,) int64
    weights: Any  # (V,) float64
    branches: Any  # (NH+G,PLACES,C)
    work: Any  # (threads,work_size)


class Call(NamedTuple):
    """Everything that a thread needs to know."""

    drawn: Any  # (D,) int32
    logits: Any  # (V,)
    keys: Any  # (2,L,NH,S,HS)
    values: Any  # (2,L,NH,S,HS)
    token: int
    index: int
    model: Any
    sampling: Any
    memory: Any
    multiply: int  # the address of the product's machine code
    threads: int


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
    (V, C), (L, NH, S, HS), (G, M), dtype = head.shape, keys.shape[1:], fc_weight.shape[1::2], logits.dtype

    def bias(array: Array | None, *shape: int) -> Array:
        return _zeros(shape, dtype) if array is None else array

    layers = Layers(
        ln_1_weight, bias(ln_1_bias, L, C), qkv_weight, bias(qkv_bias, L, NH, 3 * HS),
        attn_proj_weight, bias(attn_proj_bias, L, C),
        ln_2_weight, bias(ln_2_bias, L, C), fc_weight, bias(fc_bias, L, G, M),
        mlp_proj_weight, bias(mlp_proj_bias, L, C),
    )  # fmt: skip
    threads = max(1, min(thread_count(), drawn.size * (L * C * (4 * NH * HS + 2 * G * M) + V * C) // WORTH))
    if threads > 1 and _alone > 0:
        threads, _alone = 1, _alone - 1
    team, own = scratch("team", TEAM_SIZE, INT64), work_size(C, HS, S, M, dtype)
    team[:TEAM_SIZE] = 0
    memory = Memory(
        team, scratch("heap", V, INT64), scratch("weights", V, FLOAT64),
        scratch("branches", (NH + G) * PLACES * C, dtype)[: (NH + G) * PLACES * C].reshape(-1, C),
        scratch("own", threads * own, dtype)[: threads * own].reshape(threads, own),
    )  # fmt: skip
    everything = Call(
        drawn, logits, keys, values, int(token), int(index),
        Model(
            token_table, position_table, layers, ln_f_weight, bias(ln_f_bias, C), head,
            int(norm == "post"), ACTIVATIONS[activation],
        ),
        Sampling(float(temperature), int(top_k), float(top_p), np.uint64(key), int(draw)),
        memory, rows_product_address(dtype), threads,
    )  # fmt: skip
    _launch(_member_address(everything), flat(everything), threads)
    if team[DELAYED] > 0 or team[MEMBERS] < threads:
        _alone = ALONE
    message = int(team[MESSAGE])
    return message - STOPPED if message >= STOPPED else drawn.size


@functools.lru_cache(32)
def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """In the place of a bias that is not given."""
    return np.zeros(shape, dtype)


# ------------------------------------------------------------------------------------------------------------- kernels

_members: dict[np.dtype[Any], int] = {}


def _member_address(everything: Call) -> int:
    """The address of the machine code of `_member`; compiled once for float32 and once for float64."""
    dtype = everything.logits.dtype
    if dtype not in _members:
        _members[dtype] = int(c_function(types.void(type_of(everything)))(_member).address)
    return _members[dtype]


@kernel()
def _launch(member, everything, threads):
    pointer = record(everything)
    if threads == 1:
        call(member, pointer)
    else:
        for _ in numba.prange(threads):
            call(member, pointer)


def _member(call):
    """What one thread does, for all tokens."""
    model, team = call.model, call.memory.team
    rank = join(team, call.threads)
    if rank < 0:
        return
    size, token = members(team), call.token
    S, HS, M = model.position_table.rows, call.keys.columns, model.layers.fc_weight.columns
    work = work_of(call.memory.work[rank], model.head.columns, HS, S, M)
    for number in range(call.drawn.size):
        places = places_of(call.index + number, S)
        _read(call, work, places, token, rank, size)

        # logits = head ln_f(x)
        normed = _norm(work.normed[:1], work.x[:1], model.ln_f_weight, model.ln_f_bias, work)
        first, last = share_of((model.head.rows + HEAD_ROWS - 1) // HEAD_ROWS, rank, size)
        first, last = first * HEAD_ROWS, last * HEAD_ROWS
        _dots(call.logits[first:last], normed[0], model.head[first:last])
        barrier(team, size)
        if rank == 0:
            _draw(call, number, size)
        barrier(team, size, True)  # drawing from a large vocabulary takes longer than any delay
        message = atomic_load(team, MESSAGE)
        if message >= STOPPED or (message == DISMISSED and rank > 0):
            return
        if message == DISMISSED:
            size = 1
        token = call.drawn[number]


@device
def _draw(call, number, size):
    """Draw the next token and tell the team: it may go on, is dismissed, or has to stop."""
    team, how = call.memory.team, call.sampling
    noise = uniform(how.key, how.draw + number)
    token = draw_token(
        call.logits, call.memory.heap, call.memory.weights, how.temperature, how.top_k, how.top_p, noise
    )
    if token < 0:
        atomic_add(team, MESSAGE, STOPPED + number - atomic_load(team, MESSAGE))  # which may be DISMISSED
    else:
        call.drawn[number] = token
        if size > 1 and atomic_load(team, DELAYED) > 0:
            atomic_add(team, MESSAGE, DISMISSED)


@device
def _read(call, work, places, token, rank, size):
    """Take a token through all layers, for all places where it stands: a row of x (places,C) for each."""
    model, w, branches, team = call.model, call.model.layers, call.memory.branches, call.memory.team
    L, post = w.ln_1_weight.rows, model.post
    NH, G = w.qkv_bias.rows // L, w.fc_bias.rows // L
    x = work.x[: places.rows]
    for r in range(x.rows):
        add(x[r], model.token_table[token], model.position_table[places.place - r * places.step])
    for layer in range(L):
        normed = x
        if not post:
            normed = _norm(work.normed[: x.rows], x, w.ln_1_weight[layer], w.ln_1_bias[layer], work)
        if layer == L - 1:
            x = x[:1]  # what the last layer adds in the next window is not needed

        # heads
        first, last = share_of(NH, rank, size)
        for h in range(first, last):
            _head(branch_of(branches, h, x.rows), normed, layer * NH + h, call, work, places)
        barrier(team, size)
        _add_branches(x, branches[: NH * PLACES], w.attn_proj_bias[layer])
        if post:
            _norm(x, x, w.ln_1_weight[layer], w.ln_1_bias[layer], work)
        normed = x
        if not post:
            normed = _norm(work.normed[: x.rows], x, w.ln_2_weight[layer], w.ln_2_bias[layer], work)

        # groups of hidden units
        first, last = share_of(G, rank, size)
        for g in range(first, last):
            _group(branch_of(branches, NH + g, x.rows), normed, layer * G + g, call, work)
        barrier(team, size)
        _add_branches(x, branches[NH * PLACES :], w.mlp_proj_bias[layer])
        if post:
            _norm(x, x, w.ln_2_weight[layer], w.ln_2_bias[layer], work)


@device
def _head(branch, normed, head, call, work, places):
    """branch = attend(normed qkv_weight + qkv_bias) attn_proj_weight, for one head of all layers' heads"""
    multiply, w = call.multiply, call.model.layers
    (C, HS), S, real = (normed.columns, work.attended.columns), work.scores.columns, normed.dtype.type
    qkv, attended = work.qkv[: normed.rows], work.attended[: branch.rows]

    # qkv = normed qkv_weight + qkv_bias
    rows_product(multiply, qkv, normed, w.qkv_weight[head * C : (head + 1) * C])
    for r in range(qkv.rows):
        add(qkv[r], qkv[r], w.qkv_bias[head])
        q, k, v = qkv[r][:HS], qkv[r][HS : 2 * HS], qkv[r][2 * HS :]
        place = places.place - r * places.step
        k_cache = cache_of(call.keys, places.window + r, head, S)
        v_cache = cache_of(call.values, places.window + r, head, S)
        copy(k_cache[place], k)
        copy(v_cache[place], v)
        if r < attended.rows:
            # weights = exp((q k^T - largest) / sqrt(HS)), in the place of the scores
            scores = weights = work.scores[:, : place + 1]
            _dots(scores[0], q, k_cache[: place + 1])
            total = exp_into(weights[0], scores[0], real(1.0 / math.sqrt(HS)), maximum(scores[0]))
            # attended = weights v / total
            rows_product(multiply, attended[r : r + 1], weights, v_cache[: place + 1])
            scale(attended[r], real(1) / total)

    # branch = attended attn_proj_weight
    rows_product(multiply, branch, attended, w.attn_proj_weight[head * HS : (head + 1) * HS])


@device
def _group(branch, normed, group, call, work):
    """branch = activation(normed fc_weight + fc_bias) mlp_proj_weight, for one group of all layers' groups"""
    multiply, w = call.multiply, call.model.layers
    (C, M), hidden = (normed.columns, work.hidden.columns), work.hidden[: normed.rows]

    # hidden = activation(normed fc_weight + fc_bias)
    rows_product(multiply, hidden, normed, w.fc_weight[group * C : (group + 1) * C])
    for r in range(hidden.rows):
        add(hidden[r], hidden[r], w.fc_bias[group])
        if call.model.activation == GELU:
            gelu(hidden[r], hidden[r])
        else:
            relu(hidden[r], hidden[r])

    # branch = hidden mlp_proj_weight
    rows_product(multiply, branch, hidden, w.mlp_proj_weight[group * M : (group + 1) * M])


@device
def _add_branches(x, branches, bias):
    """x = x + bias + the branches of all heads or groups, in their order"""
    for r in range(x.rows):
        add(x[r], x[r], bias)
        for part in range(0, branches.rows, PLACES):
            add(x[r], x[r], branches[part + r])


@device
def _norm(out, x, weight, bias, work):
    """Layer normalisation of each row of x; returns `out`."""
    mean, rstd, eps = work.statistics[:1], work.statistics[1:], x.dtype.type(NORM_EPS)
    for r in range(x.rows):
        normalize_one(out[r], 0, mean, 0, rstd, 0, x[r], 0, 1, x.columns, weight, 0, bias, 0, True, eps)
    return out


@device
def _dots(out, x, rows):
    """out = rows x"""
    whole = rows.rows // 4 * 4
    for j in range(0, whole, 4):
        four_dots(out[j : j + 4], x, rows[j : j + 4])
    for j in range(whole, rows.rows):
        out[j] = dot(x, rows[j])
