from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, normal

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.numpy_ref.activation import normal_cdf

OPERATIONS = [f"{name}_{way}" for name in ("relu", "gelu", "gelu_erf") for way in ("forward", "backward")]


@pytest.mark.parametrize("case", [case for name in OPERATIONS for case in cases(name)], ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_erf"])
def test_gradients_by_finite_differences(backend: Backend, name: str) -> None:
    inp, dout = 2 * normal(1, 7, 11), normal(2, 7, 11)
    out, dinp = np.empty_like(inp), np.empty_like(inp)

    def loss() -> float:
        getattr(backend, f"{name}_forward")(out, inp)
        return float((out * dout).sum())

    getattr(backend, f"{name}_backward")(dinp, dout, inp)
    assert_is_gradient("inp", dinp, loss, inp)


def test_gelu_at_known_points(backend: Backend, dtype: str) -> None:
    """The formula in Python floats, and its limits: 0 for large negative x, x for large positive x."""
    points = [0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 5.0, -5.0, 12.0, -12.0, 1e-20, 1e4, -1e4]
    inp = np.array([points], dtype)
    out = np.empty_like(inp)
    backend.gelu_forward(out, inp)
    expected = [x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in points]
    for x, actual, wanted in zip(points, out[0], expected, strict=True):
        assert abs(float(actual) - wanted) <= 4 * EPS[dtype] * abs(x), f"gelu({x})"


def test_gelu_erf_is_that_of_pythons_error_function(backend: Backend, dtype: str) -> None:
    """To within 6 eps of x, and of 1 for the slope: 1/2 - erf/2 cancels for negative x in the readable kernel."""
    inp = np.concatenate([np.linspace(-40, 40, 8001), [0.0, -0.0, 1e-20, -1e-20, 1e4, -1e4, 1e30, -1e30]])
    inp = inp.astype(dtype)[None]
    out, dinp = np.empty_like(inp), np.empty_like(inp)
    with np.errstate(over="ignore"):
        backend.gelu_erf_forward(out, inp)
        backend.gelu_erf_backward(dinp, np.ones_like(inp), inp)
    for x, value, slope in zip(*(array[0].tolist() for array in (inp, out, dinp)), strict=True):
        below = (1 + math.erf(x / math.sqrt(2))) / 2
        density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        assert abs(value - x * below) <= 6 * EPS[dtype] * abs(x), f"gelu_erf({x})"
        assert abs(slope - (below + x * density)) <= 6 * EPS[dtype], f"the slope at {x}"


def test_gelu_erf_of_special_numbers(backend: Backend, dtype: str) -> None:
    """As of the tanh form: NaN where 0 meets infinity."""
    inp = np.array([[0.0, np.inf, -np.inf, np.nan]], dtype)
    for name in ("gelu", "gelu_erf"):
        out, dinp = np.empty_like(inp), np.empty_like(inp)
        with np.errstate(invalid="ignore"):
            getattr(backend, f"{name}_forward")(out, inp)
            getattr(backend, f"{name}_backward")(dinp, np.ones_like(inp), inp)
        np.testing.assert_array_equal(out, np.array([[0, np.inf, np.nan, np.nan]], dtype))
        np.testing.assert_array_equal(dinp[0, [0, 3]], np.array([0.5, np.nan], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_series_ends_where_it_no_longer_changes(dtype: str) -> None:
    """So an element does not depend on the others of its array, of which a larger one takes more terms."""
    inp = np.linspace(-8.9, 8.9, 997).astype(dtype)
    alone = np.concatenate([normal_cdf(inp[i : i + 1]) for i in range(inp.size)])
    np.testing.assert_array_equal(normal_cdf(inp), alone)


def test_relu_of_special_numbers(backend: Backend, dtype: str) -> None:
    inp = np.array([[-1.0, 0.0, 2.0, np.inf, -np.inf, np.nan]], dtype)
    out = np.empty_like(inp)
    backend.relu_forward(out, inp)
    np.testing.assert_array_equal(out, np.array([[0, 0, 2, np.inf, 0, np.nan]], dtype))


def test_relu_at_zero(backend: Backend, dtype: str) -> None:
    """Its derivative there is 0, alone and in a linear layer; random numbers are never 0."""
    inp = np.array([[0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0] * 5], dtype)
    dout, dinp = np.full_like(inp, 3.0), np.empty_like(inp)
    wanted = np.array([[0.0, 0.0, 3.0, 0.0, 3.0, 0.0] * 5], dtype)
    backend.relu_backward(dinp, dout, inp)
    np.testing.assert_array_equal(dinp, wanted)
    weight, unused = np.eye(inp.size, dtype=dtype), np.zeros((inp.size, inp.size), dtype)
    backend.linear_backward(dinp, unused, None, dout, inp, weight, activation="relu", preactivation=inp)
    np.testing.assert_array_equal(dinp, wanted)
    backend.linear_backward(dinp, unused, None, dout, inp, weight, activation="relu", preactivation=inp, dresidual=dout)
    np.testing.assert_array_equal(dinp, wanted + 3)


def test_gelu_derivative_does_not_overflow(backend: Backend, dtype: str) -> None:
    """1/cosh^2 would overflow at |x| = 100, where the derivative is 1 or 0."""
    inp = np.array([[100.0, -100.0, 1000.0, -1000.0]], dtype)
    dinp = np.empty_like(inp)
    backend.gelu_backward(dinp, np.ones_like(inp), inp)
    assert_close("dinp", dinp, np.array([[1.0, 0.0, 1.0, 0.0]]), EPS[dtype])
