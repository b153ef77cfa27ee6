from __future__ import annotations

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Activation, Backend


@pytest.mark.parametrize("case", cases("linear_forward") + cases("linear_backward"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_by_finite_differences(backend: Backend, transposed: bool) -> None:
    N, C, OC = 5, 7, 3
    inp, bias, residual, dout = normal(1, N, C), normal(2, OC), normal(3, N, OC), normal(4, N, OC)
    weight = normal(5, OC, C).T if transposed else normal(5, C, OC)

    def loss() -> float:
        out = np.empty((N, OC))
        backend.linear_forward(out, inp, weight, bias, residual=residual)
        return float((out * dout).sum())

    dinp, dweight, dbias = np.empty((N, C)), np.zeros_like(weight), np.zeros(OC)
    backend.linear_backward(dinp, dweight, dbias, dout, inp, weight)
    assert_is_gradient("inp", dinp, loss, inp)
    assert_is_gradient("weight", dweight, loss, weight)
    assert_is_gradient("bias", dbias, loss, bias)
    assert_is_gradient("residual", dout, loss, residual)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_erf"])
def test_gradients_through_activation_and_residual(backend: Backend, activation: Activation) -> None:
    """Two layers with an activation between them, and a way around the second: x2 = x + f(x) @ w2."""
    N, C, hidden = 4, 3, 5
    inp, w1, w2, dout = normal(1, N, C), normal(2, C, hidden), normal(3, hidden, C), normal(4, N, C)
    activated, preactivation, out = np.empty((N, hidden)), np.empty((N, hidden)), np.empty((N, C))

    def loss() -> float:
        backend.linear_forward(activated, inp, w1, None, activation=activation, preactivation=preactivation)
        backend.linear_forward(out, activated, w2, None, residual=inp)
        return float((out * dout).sum())

    loss()
    dpre, dinp, dw1, dw2 = np.empty((N, hidden)), np.empty((N, C)), np.zeros_like(w1), np.zeros_like(w2)
    backend.linear_backward(dpre, dw2, None, dout, activated, w2, activation=activation, preactivation=preactivation)
    backend.linear_backward(dinp, dw1, None, dpre, inp, w1, dresidual=dout)
    assert_is_gradient("inp", dinp, loss, inp)
    assert_is_gradient("w1", dw1, loss, w1)
    assert_is_gradient("w2", dw2, loss, w2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_relu_lets_nothing_through_where_it_is_off(backend: Backend, dtype: str, bad: float) -> None:
    """A choice, as in `relu_backward`: not even a NaN, of which a product with 0 would make another."""
    N, C, OC = 5, 37, 4
    preactivation, dout, weight = normal(1, N, C, dtype=dtype), normal(2, N, OC, dtype=dtype), normal(3, C, OC)
    dout[2, 1] = bad
    activated, dinp, dweight = np.maximum(preactivation, 0), np.empty_like(preactivation), np.zeros((C, OC), dtype)
    with np.errstate(invalid="ignore"):
        backend.linear_backward(
            dinp, dweight, None, dout, activated, weight.astype(dtype), activation="relu", preactivation=preactivation
        )
    np.testing.assert_array_equal(np.isfinite(dinp[2]), preactivation[2] <= 0)
    np.testing.assert_array_equal(dinp[preactivation <= 0], 0)


def test_parameter_gradients_are_added_to(backend: Backend, dtype: str) -> None:
    inp, weight, dout = normal(1, 6, 4, dtype=dtype), normal(2, 4, 5, dtype=dtype), normal(3, 6, 5, dtype=dtype)
    dinp, dweight, dbias = np.empty_like(inp), np.zeros_like(weight), np.zeros(5, dtype)
    backend.linear_backward(dinp, dweight, dbias, dout, inp, weight)
    once = dinp.copy(), dweight.copy(), dbias.copy()
    backend.linear_backward(dinp, dweight, dbias, dout, inp, weight)
    np.testing.assert_array_equal(dinp, once[0])
    assert_close("dweight", dweight, 2 * once[1], 4 * EPS[dtype])
    assert_close("dbias", dbias, 2 * once[2], 4 * EPS[dtype])


@each_backend
@given(N=st.integers(1, 40), C=st.integers(1, 70), OC=st.integers(1, 70), seed=st.integers(0, 999))
def test_linear_is_linear(name: str, N: int, C: int, OC: int, seed: int) -> None:
    """f(x + y) = f(x) + f(y), in both backends."""
    x, y, weight = normal(seed, N, C), normal(seed + 1, N, C), normal(seed + 2, C, OC)
    results = []
    for inp in (x + y, x, y):
        results.append(np.empty((N, OC)))
        get_backend(name).linear_forward(results[-1], inp, weight, None)
    assert_close(f"{name} out", results[0], results[1] + results[2], 5e-15, relative_to=float(np.sqrt(C)) * 10)
