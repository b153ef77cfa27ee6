"""Token and position embeddings. The backward pass gives channels, not rows, to the threads: so each sum over equal
tokens is made by one thread, in the order of the rows."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._jit import kernel
from ._simd.blocks import block_rows
from ._simd.spans import add_span
from ._simd.target import TARGET


@implements(contract.embedding_forward)
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array) -> None:
    # (B,T), (V,C), (T,C) -> (B,T,C)
    _forward(out, tokens, token_table, position_table)


@implements(contract.embedding_backward)
def embedding_backward(dtoken_table: Array, dposition_table: Array, dout: Array, tokens: Array) -> None:
    # (B,T,C), (B,T) -> (V,C), (T,C)
    C, lanes = dout.shape[2], TARGET.lanes(dout.itemsize)
    _backward(dtoken_table, dposition_table, dout, tokens, min(numba.get_num_threads(), -(-C // lanes)), lanes)


@kernel()
def _forward(out, tokens, token_table, position_table):
    B, T, C = out.shape
    for n in numba.prange(B * T):
        b, t = n // T, n % T
        add_span(out, n * C, token_table, tokens[b, t] * C, position_table, t * C, C)


@kernel()
def _backward(dtoken_table, dposition_table, dout, tokens, blocks, lanes):
    B, T, C = dout.shape
    for block in numba.prange(blocks):
        first, last = block_rows(block, blocks, C, lanes)
        for b in range(B):
            for t in range(T):
                at, token, position = (b * T + t) * C + first, tokens[b, t] * C + first, t * C + first
                add_span(dtoken_table, token, dtoken_table, token, dout, at, last - first)
                add_span(dposition_table, position, dposition_table, position, dout, at, last - first)
