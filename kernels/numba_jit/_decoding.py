"""What generation works with: the arguments of a call, the working memory of a thread, and the places of a token.

`Call` and its parts are named tuples of arrays in Python. Kernels find them as records, in which an array is a view
whose rows are all of the array's axes but the last: see `_simd.records`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..memory import CACHE_LINE
from ._runtime.jit import device
from ._simd.views import block, matrix

PLACES = 2  # where a token stands, at most: so many rows go through the transformer at once


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


class Positions(NamedTuple):
    """How a model knows where a token stands, and the places of its caches."""

    table: Any  # (S,C), or with rotary positions a placeholder
    cosines: Any  # (D,H), of the tokens of the call, or a placeholder
    sines: Any  # (D,H)
    rotary: int  # 1 if queries and keys are rotated and the cache is a ring
    S: int
    stride: int  # tokens between the beginnings of two windows
    rings: Any  # (L,) int64: the places of each layer's ring, S or fewer


class Model(NamedTuple):
    """A transformer."""

    token_table: Any  # (V,C)
    positions: Positions
    layers: Layers
    ln_f_weight: Any  # (C,)
    ln_f_bias: Any  # (C,)
    head: Any  # (V,C)
    post: int  # 1 if a norm follows each branch, 0 if it comes before
    activation: int
    residual: int  # 1 if the branches are added to the stream, 0 if they replace it


class Sampling(NamedTuple):
    """How tokens are drawn; see `contract.sample_token`."""

    temperature: float
    top_k: int
    top_p: float
    key: np.uint64
    draw: int


class Memory(NamedTuple):
    """The working memory of all threads."""

    team: Any  # (TEAM_SIZE,) int64
    heap: Any  # (V,) int64
    weights: Any  # (V,) float64
    branches: Any  # (NH+G,PLACES,C): what each head and each group adds to the stream
    work: Any  # (threads,work_size)


class Call(NamedTuple):
    """A call of `decode_tokens`."""

    drawn: Any  # (D,) int32
    logits: Any  # (V,)
    keys: Any  # (K,L,NH,S,HS)
    values: Any  # (K,L,NH,S,HS)
    token: int
    first_index: int  # of the token in the text
    model: Model
    sampling: Sampling
    memory: Memory
    multiply: int  # the address of the product's machine code
    threads: int


# ------------------------------------------------------------------------------------------------------ working memory


class Work(NamedTuple):
    """What one thread works in."""

    x: Any  # (PLACES,C)
    normed: Any  # (PLACES,C)
    qkv: Any  # (PLACES,3*HS)
    attended: Any  # (PLACES,HS)
    scores: Any  # (1,S)
    hidden: Any  # (PLACES,M)


def work_size(C: int, HS: int, S: int, M: int, dtype: np.dtype[Any]) -> int:
    """The number of elements in `Work`, rounded up to two cache lines, which some CPUs fetch together."""
    lines = 2 * CACHE_LINE // dtype.itemsize
    return -(-(PLACES * (2 * C + 4 * HS + M) + S) // lines) * lines


@device
def work_of(row, C, HS, S, M):
    """The working memory of a thread: a row of `Memory.work`, cut into its parts."""
    x, rest = _cut(row, PLACES, C)
    normed, rest = _cut(rest, PLACES, C)
    qkv, rest = _cut(rest, PLACES, 3 * HS)
    attended, rest = _cut(rest, PLACES, HS)
    scores, rest = _cut(rest, 1, S)
    hidden, _ = _cut(rest, PLACES, M)
    return Work(x, normed, qkv, attended, scores, hidden)


@device
def _cut(row, rows, columns):
    """The beginning of a row as a matrix, and the rest."""
    return matrix(row, 0, rows, columns, columns), row[rows * columns :]


@device
def branch_of(branches, part, rows):
    """What head or group number `part` adds to the stream, (rows,C)."""
    return block(branches, part, PLACES)[:rows]


# ------------------------------------------------------------------------------------------------------ places, caches


class Places(NamedTuple):
    """Where a token stands: at `place` of `window`, and, if there are two rows, `stride` earlier in the next window.
    With rotary positions, `place` is its index in the text."""

    rows: int
    window: int
    place: int
    stride: int


@device
def places_of(index, positions):
    """The places of token number `index`; see `kernels.windows`."""
    S, stride = positions.S, positions.stride
    if positions.rotary:
        return Places(1, 0, index, stride)
    window = max(0, (index - S) // stride + 1)
    place = index - window * stride
    return Places(2 if place >= stride else 1, window, place, stride)


@device
def cache_of(caches, window, head, S):
    """The keys or the values of a head in a window, (S,HS). `head` counts the heads of all layers; a ring is window 0
    of one."""
    heads = caches.rows // (2 * S)
    return block(caches, window % 2 * heads + head, S)
