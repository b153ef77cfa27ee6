"""The embedding: a vector for each token, plus a vector for each position."""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import Array, implements
from ._sums import sum_of_rows


@implements(contract.embedding_forward)
def embedding_forward(out: Array, tokens: Array, token_table: Array, position_table: Array | None) -> None:
    # (B,T), (V,C), (T,C) -> (B,T,C)
    # Attention does not depend on the order of its keys; the vector of the position provides it, or `rotary` does.
    if position_table is not None:
        out[...] = token_table[tokens] + position_table
    else:
        out[...] = token_table[tokens]


@implements(contract.embedding_backward)
def embedding_backward(dtoken_table: Array, dposition_table: Array | None, dout: Array, tokens: Array) -> None:
    # (B,T,C), (B,T) -> dtoken_table (V,C), dposition_table (T,C)

    # forward: out[b,t] = token_table[tokens[b,t]] + position_table[t]
    # The gradient of a table's row is the sum over all places that used it; a token that does not occur gets none.
    for token in np.unique(tokens):
        dtoken_table[token] += sum_of_rows(dout[tokens == token])
    if dposition_table is not None:
        dposition_table += sum_of_rows(dout)
