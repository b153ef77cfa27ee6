from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import assert_backends_agree, assert_close, assert_is_gradient, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.numpy_ref.dropout import dropout_mask
from bevia_fast.kernels.rng import GOLDEN32, GOLDEN64, MASK64, MIX32_A, MIX32_B, keep_threshold, mix64, stream_key


@pytest.mark.parametrize("case", cases("dropout_forward") + cases("dropout_backward"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradients_by_finite_differences(backend: Backend, rate: float) -> None:
    inp, residual, dout = normal(1, 5, 7), normal(2, 5, 7), normal(3, 5, 7)
    out, dinp = np.empty_like(inp), np.empty_like(inp)

    def loss() -> float:
        backend.dropout_forward(out, inp, rate, 42, residual=residual)
        return float((out * dout).sum())

    backend.dropout_backward(dinp, dout, rate, 42)
    assert_is_gradient("inp", dinp, loss, inp)
    assert_is_gradient("residual", dout, loss, residual)


def scalar_mask(key: int, row: int, column: int, rate: float) -> bool:
    """The definition, in Python integers."""
    z = mix64((key + GOLDEN64 * (row + 1)) & MASK64)
    h = (column * GOLDEN32 + (z & 0xFFFFFFFF)) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * MIX32_A) & 0xFFFFFFFF
    h ^= h >> 15
    h = (h + (z >> 32)) & 0xFFFFFFFF
    h = (h * MIX32_B) & 0xFFFFFFFF
    h ^= h >> 15
    return h >= keep_threshold(rate)


@given(key=st.integers(0, MASK64), rate=st.floats(0, 0.99))
def test_mask_is_its_definition(key: int, rate: float) -> None:
    mask = dropout_mask(key, 5, 9, rate)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [[scalar_mask(key, row, column, rate) for column in range(9)] for row in range(5)]


@each_backend
@given(key=st.integers(0, MASK64), rate=st.floats(0.001, 0.99), N=st.integers(1, 30), C=st.integers(1, 70))
def test_both_backends_drop_what_the_mask_drops(name: str, key: int, rate: float, N: int, C: int) -> None:
    ones = np.ones((N, C), np.float32)
    out = np.empty_like(ones)
    get_backend(name).dropout_forward(out, ones, rate, key)
    np.testing.assert_array_equal(out != 0, dropout_mask(key, N, C, rate), err_msg=name)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_mask_keeps_its_share(rate: float) -> None:
    """Overall, per row and per column, to within 5 standard deviations of independent draws."""
    rows, columns = 1000, 997
    mask = dropout_mask(stream_key(1, "mlp residual dropout", 3, 2), rows, columns, rate)
    deviation = math.sqrt(rate * (1 - rate))
    assert abs(mask.mean() - (1 - rate)) < 5 * deviation / math.sqrt(rows * columns)
    assert np.abs(mask.mean(axis=0) - (1 - rate)).max() < 5 * deviation / math.sqrt(rows)
    assert np.abs(mask.mean(axis=1) - (1 - rate)).max() < 5 * deviation / math.sqrt(columns)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation, in standard deviations of the correlation of independent masks."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * math.sqrt(a.size)


def test_masks_of_different_keys_rows_and_columns_are_independent() -> None:
    shape = (503, 509)
    mask = dropout_mask(stream_key(7, "attention dropout", 0, 0), *shape, 0.5)
    for indices in ((0, 1), (1, 0), (2**40, 0)):
        other = dropout_mask(stream_key(7, "attention dropout", *indices), *shape, 0.5)
        assert abs(correlation(mask, other)) < 5
    assert abs(correlation(mask, dropout_mask(stream_key(8, "attention dropout", 0, 0), *shape, 0.5))) < 5
    assert abs(correlation(mask, dropout_mask(stream_key(7, "embedding dropout", 0, 0), *shape, 0.5))) < 5
    for step in (1, 2, 16, 64):
        assert abs(correlation(mask[step:], mask[:-step])) < 5, f"rows {step} apart"
        assert abs(correlation(mask[:, step:], mask[:, :-step])) < 5, f"columns {step} apart"


def test_expectation_is_kept(backend: Backend, dtype: str) -> None:
    inp = np.ones((400, 401), dtype)
    out = np.empty_like(inp)
    backend.dropout_forward(out, inp, 0.2, 5)
    assert_close("mean", out.mean(dtype=np.float64), 1.0, 5 * 0.5 / 400)


def test_rate_0_changes_nothing(backend: Backend, dtype: str) -> None:
    inp, residual = normal(1, 9, 33, dtype=dtype), normal(2, 9, 33, dtype=dtype)
    out = np.empty_like(inp)
    backend.dropout_forward(out, inp, 0.0, 5)
    np.testing.assert_array_equal(out, inp)
    backend.dropout_forward(out, inp, 0.0, 5, residual=residual)
    np.testing.assert_array_equal(out, inp + residual)
    backend.dropout_backward(out, inp, 0.0, 5)
    np.testing.assert_array_equal(out, inp)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_an_invalid_rate_is_refused(backend: Backend, rate: float) -> None:
    inp = np.ones((3, 4))
    for call in (backend.dropout_forward, backend.dropout_backward):
        with pytest.raises(ValueError, match="wanted 0 <= rate < 1"):
            call(np.empty_like(inp), inp, rate, 5)
