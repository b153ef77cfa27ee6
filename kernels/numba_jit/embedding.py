"""Token and position embeddings. The backward pass gives channels, not rows, to the threads: so each sum over equal
tokens is made by one thread, in the order of the rows."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._jit import kernel

CHANNELS = 32  # of a block in the backward pass: two cache lines of float32


@implements(contract.embedding_forward)
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array) -> None:
    # (B,T), (V,C), (T,C) -> (B,T,C)
    _forward(out, tokens, token_table, position_table)


@implements(contract.embedding_backward)
def embedding_backward(dtoken_table: Array, dposition_table: Array, dout: Array, tokens: Array) -> None:
    # (B,T,C), (B,T) -> (V,C), (T,C)
    _backward(dtoken_table, dposition_table, dout, tokens)


@kernel()
def _forward(out, tokens, token_table, position_table):
    B, T, C = out.shape
    for n in numba.prange(B * T):
        b, t = n // T, n % T
        token = tokens[b, t]
        for c in range(C):
            out[b, t, c] = token_table[token, c] + position_table[t, c]


@kernel()
def _backward(dtoken_table, dposition_table, dout, tokens):
    B, T, C = dout.shape
    for block in numba.prange((C + CHANNELS - 1) // CHANNELS):
        first, last = block * CHANNELS, min(C, (block + 1) * CHANNELS)
        for b in range(B):
            for t in range(T):
                token = tokens[b, t]
                for c in range(first, last):
                    dtoken_table[token, c] += dout[b, t, c]
                    dposition_table[t, c] += dout[b, t, c]
