"""The rounding error of sums over many rows, such as a bias's gradient, does not grow with their number."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import Array, normal

from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.numpy_ref._sums import sum_of_rows

ROWS, CHANNELS = 65_536, 8
LIMIT = 1e-6  # of the largest sum; added one after the other, so many rows lose 1e-5


def numbers(kind: str) -> Array:
    """Rows whose sum nearly cancels, or does not."""
    return normal(3, ROWS, CHANNELS, dtype="float32") + np.float32(kind == "positive")


def error(found: Array, terms: Array) -> float:
    exact = terms.astype(np.float64).sum(axis=0)
    return float(np.abs(found - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("rows", [1, 2, 127, 128, 129, 256, 257, 1001])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_no_row_is_lost_or_added_twice(rows: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(rows).integers(-9, 9, (rows, *shape)).astype(np.float32)
    assert np.array_equal(sum_of_rows(x), x.astype(int).sum(axis=0))


@pytest.mark.parametrize("kind", ["cancelling", "positive"])
def test_the_gradient_of_a_bias(backend: Backend, kind: str) -> None:
    dout, inp, weight = numbers(kind), normal(1, ROWS, 3, dtype="float32"), normal(2, 3, CHANNELS, dtype="float32")
    dbias = np.zeros(CHANNELS, np.float32)
    backend.linear_backward(np.empty_like(inp), np.zeros_like(weight), dbias, dout, inp, weight)
    assert error(dbias, dout) < LIMIT


@pytest.mark.parametrize("kind", ["cancelling", "positive"])
def test_the_other_sums_of_the_reference(kind: str) -> None:
    """Those of layer normalization and of the embedding, here of one token, at one position."""
    numpy, dout = get_backend("numpy"), numbers(kind)
    inp, one, zero = numbers(kind), np.ones(ROWS, np.float32), np.zeros(ROWS, np.float32)
    dweight, dbias, gain = (np.full(CHANNELS, value, np.float32) for value in (0, 0, 1))
    numpy.layernorm_backward(np.empty_like(inp), dweight, dbias, dout, inp, gain, zero, one)
    assert error(dweight, dout * inp) < LIMIT
    assert error(dbias, dout) < LIMIT
    dtoken_table, dposition_table = np.zeros((2, CHANNELS), np.float32), np.zeros((1, CHANNELS), np.float32)
    numpy.embedding_backward(dtoken_table, dposition_table, dout[:, None], np.ones((ROWS, 1), np.int32))
    assert error(dtoken_table[1], dout) < LIMIT
    assert error(dposition_table[0], dout) < LIMIT
