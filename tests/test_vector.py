"""The vector functions that kernels are made of, held against wider arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._jit import kernel
from bevia_fast.kernels.numba_jit._simd.softmax_spans import exp_span, exp_sum_span, max_span
from bevia_fast.kernels.numba_jit._simd.vector import LOG2E

Array = NDArray[Any]
WIDER = {"float32": np.float64, "float64": np.longdouble}


@kernel(parallel=False)
def _exp(out: Array, inp: Array, scale: Any) -> Any:
    return exp_span(out, 0, inp, 0, inp.size, scale, out.dtype.type(0))


@kernel(parallel=False)
def _exp_sum(inp: Array, n: int) -> Any:
    return exp_sum_span(inp, 0, n, inp.dtype.type(1), max_span(inp, 0, n))


def exp2(inp: Array) -> Array:
    out = np.empty_like(inp)
    _exp(out, inp, inp.dtype.type(1))
    return out


def ulps(found: Array, wanted: Array) -> Array:
    """The distance in units of the last place of what is wanted, which is in wider arithmetic."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = wanted.astype(found.dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    unit = np.spacing(np.abs(rounded[finite])).astype(wanted.dtype)
    error: Array = np.abs(found[finite].astype(wanted.dtype) - wanted[finite]) / unit
    return error


def test_exp2_over_all_its_range(dtype: str) -> None:
    """From below the smallest denormal result to above the largest finite one."""
    low, high = (-151, 129) if dtype == "float32" else (-1076, 1025)
    inp = np.linspace(low, high, 500_009).astype(dtype)
    assert ulps(exp2(inp), np.exp2(inp.astype(WIDER[dtype]))).max() <= 2.0  # with FMA 1.0


def test_exp2_of_every_size_of_argument(dtype: str) -> None:
    """All exponents, denormal arguments too, and both signs."""
    info, rng = np.finfo(np.dtype(dtype)), np.random.default_rng(0)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    mantissas = 1 + rng.random((len(exponents), 40))
    inp = np.ldexp(mantissas, exponents[:, None]).astype(dtype).ravel()
    inp = np.concatenate([inp, -inp])
    with np.errstate(over="ignore", under="ignore"):
        wanted = np.exp2(inp.astype(WIDER[dtype]))
    assert ulps(exp2(inp), wanted).max() <= 2.0  # with FMA 1.0


def test_exp2_of_special_values(dtype: str) -> None:
    tiny = np.finfo(np.dtype(dtype)).smallest_subnormal
    inp = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, tiny, -tiny, 1.0, -1.0, 10.0, 1e30, -1e30], dtype)
    wanted = np.array([0, np.inf, np.nan, 1, 1, 1, 1, 2, 0.5, 1024, np.inf, 0], dtype)
    np.testing.assert_array_equal(exp2(inp), wanted)


def test_powers_of_two_are_exact(dtype: str) -> None:
    low, high = (-149, 127) if dtype == "float32" else (-1074, 1023)
    powers = np.arange(low, high + 1)
    np.testing.assert_array_equal(exp2(powers.astype(dtype)), np.ldexp(1.0, powers).astype(dtype))


def test_exp_through_the_base_two(dtype: str) -> None:
    """exp(x) as the softmax makes it, 2^(x log2(e)): 2 ulp, and what the rounding of x log2(e) moves it by."""
    inp = np.linspace(-80, 80, 400_009).astype(dtype)
    out, real = np.empty_like(inp), inp.dtype.type
    _exp(out, inp, real(LOG2E))
    error = ulps(out, np.exp(inp.astype(WIDER[dtype])))
    assert error[np.abs(inp) <= 1].max() <= 2.0
    assert (error <= 1.0 + 2.0 * np.abs(inp)).all()


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 33, 100])
def test_the_sum_is_of_these_elements_alone(dtype: str, n: int) -> None:
    """What lies behind the span has no part in it."""
    inp = np.random.default_rng(n).normal(size=n + 40).astype(dtype)
    inp[n:] = np.nan
    wanted = np.exp2(inp[:n] - inp[:n].max()).sum(dtype=np.float64)
    assert abs(_exp_sum(inp, n) - wanted) <= n * np.finfo(dtype).eps * wanted


def test_gelu_is_accurate_where_it_is_small(dtype: str) -> None:
    """x/2 (1 + tanh(u)) cancels for negative x; the kernel's form does not: the error stays relative to the result."""
    x = np.concatenate([np.linspace(-5, 8, 200_003), np.ldexp(1.0, np.arange(-60, 0))]).astype(dtype)
    out = np.empty_like(x)
    get_backend("numba").gelu_forward(out.reshape(1, -1), x.reshape(1, -1))
    wide = x.astype(WIDER[dtype])
    u = np.sqrt(WIDER[dtype](2) / WIDER[dtype](np.pi)) * (wide + WIDER[dtype]("0.044715") * wide**3)
    error = ulps(out, wide / (1 + np.exp(-2 * u)))
    assert (error <= 3.0 + 5.0 * np.abs(u)).all()  # the exponent -2u is rounded, and moves exp(-2u) by as much
