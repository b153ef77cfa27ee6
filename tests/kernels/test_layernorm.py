from __future__ import annotations

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend


@pytest.mark.parametrize("case", cases("layernorm_forward") + cases("layernorm_backward"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_by_finite_differences(backend: Backend, with_bias: bool) -> None:
    """Of out = layernorm(inp) + inp, which covers dresidual."""
    N, C = 4, 7
    inp, weight, dout = normal(1, N, C), normal(2, C), normal(3, N, C)
    bias, dbias = (normal(4, C), np.zeros(C)) if with_bias else (None, None)
    out, mean, rstd = np.empty((N, C)), np.empty(N), np.empty(N)

    def loss() -> float:
        backend.layernorm_forward(out, mean, rstd, inp, weight, bias)
        return float(((out + inp) * dout).sum())

    loss()
    dinp, dweight = np.empty((N, C)), np.zeros(C)
    backend.layernorm_backward(dinp, dweight, dbias, dout, inp, weight, mean, rstd, dresidual=dout)
    assert_is_gradient("inp", dinp, loss, inp)
    assert_is_gradient("weight", dweight, loss, weight)
    if bias is not None and dbias is not None:
        assert_is_gradient("bias", dbias, loss, bias)


def test_rows_have_mean_0_and_variance_1(backend: Backend, dtype: str) -> None:
    N, C = 9, 97
    inp = 3 + 2 * normal(1, N, C, dtype=dtype)
    out, mean, rstd = np.empty_like(inp), np.empty(N, dtype), np.empty(N, dtype)
    backend.layernorm_forward(out, mean, rstd, inp, np.ones(C, dtype), None)
    assert_close("mean", out.mean(axis=1, dtype=np.float64), np.zeros(N), 20 * EPS[dtype], relative_to=1.0)
    assert_close("variance", out.var(axis=1, dtype=np.float64), np.ones(N), 1e-5)


def test_large_mean_does_not_spoil_the_variance(backend: Backend, dtype: str) -> None:
    """mean(x^2) - mean(x)^2 would lose all digits here."""
    inp = 4096 + np.arange(-8, 8).reshape(1, 16).astype(dtype)  # exact in float32
    out, mean, rstd = np.empty_like(inp), np.empty(1, dtype), np.empty(1, dtype)
    backend.layernorm_forward(out, mean, rstd, inp, np.ones(16, dtype), None)
    assert_close("rstd", rstd, np.array([1 / np.sqrt(np.arange(-8, 8).var() + 1e-5)]), 8 * EPS[dtype])


@pytest.mark.parametrize("C", [1, 17, 512, 513])
def test_a_row_has_the_same_bits_in_any_company(backend: Backend, dtype: str, C: int) -> None:
    """Short rows may be normalized several at a time."""
    N = 39
    inp, weight, bias = normal(1, N, C, dtype=dtype), normal(2, C, dtype=dtype), normal(3, C, dtype=dtype)
    out, mean, rstd = np.empty_like(inp), np.empty(N, dtype), np.empty(N, dtype)
    backend.layernorm_forward(out, mean, rstd, inp, weight, bias)
    alone, mean_alone, rstd_alone = np.empty_like(inp), np.empty(N, dtype), np.empty(N, dtype)
    for n in range(N):
        row = slice(n, n + 1)
        backend.layernorm_forward(alone[row], mean_alone[row], rstd_alone[row], inp[row], weight, bias)
    np.testing.assert_array_equal(out, alone)
    np.testing.assert_array_equal(mean, mean_alone)
    np.testing.assert_array_equal(rstd, rstd_alone)


@each_backend
@given(shift=st.floats(-3, 3), scale=st.floats(0.5, 4), C=st.integers(2, 65), seed=st.integers(0, 999))
def test_shift_and_scale_of_a_row_do_not_matter(name: str, shift: float, scale: float, C: int, seed: int) -> None:
    inp, weight, bias = normal(seed, 3, C), normal(seed + 1, C), normal(seed + 2, C)
    results = []
    for rows in (inp, inp * scale + shift):
        out, mean, rstd = np.empty_like(inp), np.empty(3), np.empty(3)
        get_backend(name).layernorm_forward(out, mean, rstd, rows, weight, bias, eps=0.0)
        results.append(out)
    assert_close(f"{name} out", results[1], results[0], 1e-9, relative_to=1.0)
