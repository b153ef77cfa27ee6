from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_backends_agree, assert_is_gradient, normal

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels.contract import Backend


@pytest.mark.parametrize("case", cases("embedding_forward") + cases("embedding_backward"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


def test_gradients_by_finite_differences(backend: Backend) -> None:
    B, T, V, C = 2, 5, 4, 3
    tokens = np.array([[0, 1, 1, 3, 1], [1, 0, 3, 3, 0]], np.int32)  # 2 does not occur
    token_table, position_table, dout = normal(1, V, C), normal(2, T, C), normal(3, B, T, C)
    out = np.empty((B, T, C))

    def loss() -> float:
        backend.embedding_forward(out, tokens, token_table, position_table)
        return float((out * dout).sum())

    dtoken_table, dposition_table = np.zeros((V, C)), np.zeros((T, C))
    backend.embedding_backward(dtoken_table, dposition_table, dout, tokens)
    assert_is_gradient("token_table", dtoken_table, loss, token_table)
    assert_is_gradient("position_table", dposition_table, loss, position_table)
    assert not dtoken_table[2].any()


def test_one_token_everywhere(backend: Backend, dtype: str) -> None:
    """All rows are added to one row of the table: no addition may be lost between threads."""
    B, T, C = 7, 300, 5
    dtoken_table, dposition_table = np.zeros((3, C), dtype), np.zeros((T, C), dtype)
    tokens = np.full((B, T), 1, np.int32)
    backend.embedding_backward(dtoken_table, dposition_table, np.ones((B, T, C), dtype), tokens)
    np.testing.assert_array_equal(dtoken_table, np.array([[0], [B * T], [0]], dtype) * np.ones(C, dtype))
    np.testing.assert_array_equal(dposition_table, np.full((T, C), B, dtype))
