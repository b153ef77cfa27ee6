"""Token and position embeddings. The backward pass gives channels, not rows, to the threads: so each sum over equal
tokens is made by one thread, in one order. It takes a position in all sequences before the next position, so that its
row of the position table's gradient is fetched once."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import kernel
from ._runtime.target import TARGET
from ._runtime.threads import thread_count
from ._simd.blocks import block_rows
from ._simd.elementwise import add, add_and_prefetch
from ._simd.packing import prefetch
from ._simd.views import row_of

CACHED = 1 << 20  # bytes of a table whose rows are near wherever they stand; rows of a larger one are asked for ahead
AHEAD = 4  # rows, of the token table or of the result's gradient, that are asked for before they are added


@implements(contract.embedding_forward)
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array) -> None:
    # (B,T), (V,C), (T,C) -> (B,T,C)
    _forward(out, tokens.reshape(-1), token_table, position_table)


@implements(contract.embedding_backward)
def embedding_backward(dtoken_table: Array, dposition_table: Array, dout: Array, tokens: Array) -> None:
    # (B,T,C), (B,T) -> (V,C), (T,C)
    C, lanes = dout.shape[2], TARGET.lanes(dout.itemsize)
    blocks = min(thread_count(), -(-C // lanes))
    _backward(dtoken_table, dposition_table, dout, tokens.reshape(-1), blocks, lanes)


@kernel()
def _forward(out, tokens, token_table, position_table):
    B, T, C = out.shape
    far = token_table.nbytes > CACHED
    for n in numba.prange(B * T):
        at, token, position = n * C, tokens[n] * C, n % T * C
        if far:
            soon = tokens[min(n + AHEAD, B * T - 1)] * C
            add_and_prefetch(
                row_of(out, at, C), row_of(token_table, token, C), row_of(position_table, position, C),
                row_of(token_table, soon, C),
            )  # fmt: skip
        else:
            add(row_of(out, at, C), row_of(token_table, token, C), row_of(position_table, position, C))


@kernel()
def _backward(dtoken_table, dposition_table, dout, tokens, blocks, lanes):
    B, T, C = dout.shape
    far = dtoken_table.nbytes > CACHED
    for block in numba.prange(blocks):
        first, last = block_rows(block, blocks, C, lanes)
        for i in range(B * T):
            position, b = i // B, i % B
            n = b * T + position
            if B > 1:  # the next rows lie T rows apart: the CPU would not guess them
                position_soon, b_soon = (i + AHEAD) // B, (i + AHEAD) % B
                prefetch(row_of(dout, (b_soon * T + position_soon) * C + first, last - first))
            dout_row = row_of(dout, n * C + first, last - first)
            dtoken = row_of(dtoken_table, tokens[n] * C + first, last - first)
            if far:
                soon = tokens[min(n + T, B * T - 1)] * C + first
                add_and_prefetch(dtoken, dtoken, dout_row, row_of(dtoken_table, soon, last - first))
            else:
                add(dtoken, dtoken, dout_row)
            dposition = row_of(dposition_table, position * C + first, last - first)
            add(dposition, dposition, dout_row)
