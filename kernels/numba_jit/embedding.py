"""The embedding: a vector for each token, plus a vector for each position, unless positions are rotary.

In the forward pass the threads share the rows. In the backward pass they share the channels, so that one thread adds
all gradients of a token's vector, in one order. It goes position by position, over all sequences, so that the vector of
a position stays in the cache.
"""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._runtime.target import TARGET
from ._runtime.threads import thread_count
from ._simd.blocks import block_rows
from ._simd.elementwise import add, add_and_prefetch, copy
from ._simd.packing import prefetch
from ._simd.views import whole
from .linear import absent

CACHED = 1 << 20  # bytes of the largest token table that stays in the cache; rows of a larger one are prefetched
AHEAD = 4  # rows from a prefetch to the use of its row


@implements(contract.embedding_forward)
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array | None) -> None:
    # (B,T), (V,C), (T,C) -> (B,T,C)
    positions = absent(out.dtype, 2) if position_table is None else position_table
    _forward(out, tokens.reshape(-1), token_table, positions)


@implements(contract.embedding_backward)
def embedding_backward(dtoken_table: Array, dposition_table: Array | None, dout: Array, tokens: Array) -> None:
    # (B,T,C), (B,T) -> dtoken_table (V,C), dposition_table (T,C)
    C, lanes = dout.shape[2], TARGET.lanes(dout.itemsize)
    blocks = min(thread_count(), -(-C // lanes))
    dpositions = absent(dout.dtype, 2) if dposition_table is None else dposition_table
    _backward(dtoken_table, dpositions, dout, tokens.reshape(-1), blocks, lanes)


@kernel()
def _forward(out, tokens, token_table, position_table):
    N, T = tokens.size, out.shape[1]
    far, positions = token_table.nbytes > CACHED, position_table.size > 0
    for n in numba.prange(N):
        # out[b,t] = token_table[tokens[b,t]] + position_table[t]
        token, t = tokens[n], n % T
        if not positions:
            copy(whole(out)[n], whole(token_table)[token])
        elif far:
            soon = tokens[min(n + AHEAD, N - 1)]
            add_and_prefetch(
                whole(out)[n], whole(token_table)[token], whole(position_table)[t], whole(token_table)[soon]
            )
        else:
            add(whole(out)[n], whole(token_table)[token], whole(position_table)[t])


@kernel()
def _backward(dtoken_table, dposition_table, dout, tokens, blocks, lanes):
    C, far = dout.shape[2], dtoken_table.nbytes > CACHED
    for block in numba.prange(blocks):
        first, last = block_rows(block, blocks, C, lanes)
        _backward_channels(
            whole(dtoken_table)[:, first:last], whole(dposition_table)[:, first:last], whole(dout)[:, first:last],
            whole(tokens), dout.shape[1], far,
        )  # fmt: skip


@device
def _backward_channels(dtoken_table, dposition_table, dout, tokens, T, far):
    """The gradients of both tables, for some channels."""
    N = dout.rows
    B = N // T
    for i in range(N):
        t, b = i // B, i % B
        n = b * T + t
        if B > 1:  # the next rows of dout are T rows apart, which the CPU does not guess
            t_soon, b_soon = (i + AHEAD) // B, (i + AHEAD) % B
            prefetch(dout[b_soon * T + t_soon])

        # dtoken_table[tokens[b,t]] += dout[b,t]
        dtoken = dtoken_table[tokens[n]]
        if far:
            soon = tokens[min(n + T, N - 1)]
            add_and_prefetch(dtoken, dtoken, dout[n], dtoken_table[soon])
        else:
            add(dtoken, dtoken, dout[n])

        # dposition_table[t] += dout[b,t]
        if dposition_table.rows > 0:
            add(dposition_table[t], dposition_table[t], dout[n])
