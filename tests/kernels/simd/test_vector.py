"""The vector functions that kernels are made of, held against wider arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bevia_fast.kernels import get_backend
from bevia_fast.kernels.numba_jit._runtime.jit import kernel
from bevia_fast.kernels.numba_jit._simd import exponential, normal
from bevia_fast.kernels.numba_jit._simd.passes import elementwise
from bevia_fast.kernels.numba_jit._simd.reductions import maximum
from bevia_fast.kernels.numba_jit._simd.softmax import exp_into, exp_sum
from bevia_fast.kernels.numba_jit._simd.vector import Lanes, Vec
from bevia_fast.kernels.numba_jit._simd.views import row_of

Array = NDArray[Any]
WIDER = {"float32": np.float64, "float64": np.longdouble}
MOST = 2.0  # units in the last place, of exp2 and exp; with FMA 1.2
LOGS = {"float32": (-151, 129), "float64": (-1076, 1025)}  # of results from below the smallest to above the largest


def vectorized(formula: Callable[[Lanes], Callable[[Vec], Vec]]) -> Callable[[Array], Array]:
    """The function of arrays that a formula of vectors makes."""

    compute = elementwise(lambda lanes, x: formula(lanes)(x))

    @kernel(parallel=False)
    def run(out: Array, inp: Array) -> None:
        compute(row_of(out, 0, out.size), row_of(inp, 0, inp.size))

    def function(inp: Array) -> Array:
        out = np.empty_like(inp)
        run(out, inp)
        return out

    return function


exp2 = vectorized(lambda lanes: lambda x: exponential.exp2(lanes, x))
exp = vectorized(exponential.exp_of)
exp_of_an_eighth = vectorized(lambda lanes: exponential.exp_of(lanes, 0.125))


@kernel(parallel=False)
def _exp(out: Array, inp: Array, scale: Any, shift: Any) -> Any:
    return exp_into(row_of(out, 0, out.size), row_of(inp, 0, inp.size), scale, shift)


@kernel(parallel=False)
def _exp_sum(inp: Array, n: int) -> Any:
    row = row_of(inp, 0, n)
    return exp_sum(row, inp.dtype.type(1), maximum(row))


def ulps(found: Array, wanted: Array) -> Array:
    """The distance in units of the last place of what is wanted, which is in wider arithmetic."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = wanted.astype(found.dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(found[~finite], rounded[~finite])
    unit = np.spacing(np.abs(rounded[finite])).astype(wanted.dtype)
    error: Array = np.abs(found[finite].astype(wanted.dtype) - wanted[finite]) / unit
    return error


def every_size(dtype: str) -> Array:
    """Numbers with all exponents, denormal ones too, and both signs."""
    info, rng = np.finfo(np.dtype(dtype)), np.random.default_rng(0)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    mantissas = 1 + rng.random((len(exponents), 40))
    inp = np.ldexp(mantissas, exponents[:, None]).astype(dtype).ravel()
    return np.concatenate([inp, -inp])


@pytest.mark.parametrize(
    ("function", "true", "unit"),
    [(exp2, np.exp2, 1.0), (exp, np.exp, np.log(2.0)), (exp_of_an_eighth, lambda x: np.exp(x / 8), 8 * np.log(2.0))],
    ids=["exp2", "exp", "exp of an eighth"],
)
class TestPowers:
    def test_over_all_their_range(self, function: Any, true: Any, unit: float, dtype: str) -> None:
        """From below the smallest denormal result to above the largest finite one; dense, and at random."""
        low, high = LOGS[dtype]
        rng = np.random.default_rng(1)
        inp = (unit * np.concatenate([np.linspace(low, high, 500_009), rng.uniform(low, high, 100_000)])).astype(dtype)
        with np.errstate(over="ignore", under="ignore"):
            wanted = true(inp.astype(WIDER[dtype]))
        assert ulps(function(inp), wanted).max() <= MOST

    def test_of_every_size_of_argument(self, function: Any, true: Any, unit: float, dtype: str) -> None:
        inp = every_size(dtype)
        with np.errstate(over="ignore", under="ignore"):
            wanted = true(inp.astype(WIDER[dtype]))
        assert ulps(function(inp), wanted).max() <= MOST

    def test_of_special_values(self, function: Any, true: Any, unit: float, dtype: str) -> None:
        info = np.finfo(np.dtype(dtype))
        tiny, largest = info.smallest_subnormal, info.max
        inp = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, tiny, -tiny, 1e30, -1e30, largest, -largest], dtype)
        wanted = np.array([0, np.inf, np.nan, 1, 1, 1, 1, np.inf, 0, np.inf, 0], dtype)
        np.testing.assert_array_equal(function(inp), wanted)


@pytest.mark.parametrize(("steps", "degree"), [(1, 6), (16, 3)])
def test_polynomials_are_as_good_as_chebyshev_nodes_allow(steps: int, degree: int) -> None:
    """The error of interpolation of 2^f for |f| <= h, with n nodes, is at most 2^h (h ln 2)^n / (n! 2^(n - 1))."""
    h, n = 1 / (2 * steps), degree + 1
    fractions = np.linspace(-h, h, 10_001)
    error = np.abs(np.polyval(exponential.EXP2_POLYNOMIAL[32, steps], fractions) - np.exp2(fractions))
    assert error.max() <= 2**h * (h * math.log(2)) ** n / (math.factorial(n) * 2 ** (n - 1))


def test_powers_of_two_are_exact(dtype: str) -> None:
    low, high = (-149, 127) if dtype == "float32" else (-1074, 1023)
    powers = np.arange(low, high + 1)
    np.testing.assert_array_equal(exp2(powers.astype(dtype)), np.ldexp(1.0, powers).astype(dtype))


def test_exp_does_not_fall(dtype: str) -> None:
    """From one number to the next above it, where the table's entries and the polynomial's ends meet too."""
    numbers = np.float32 if dtype == "float32" else np.float64
    starts = np.log(2.0) * np.arange(-40, 40, 1 / 32)
    inp = starts.astype(numbers)
    runs = [inp]
    for _ in range(20):
        runs.append(np.nextafter(runs[-1], numbers(np.inf)))
        runs.insert(0, np.nextafter(runs[0], numbers(-np.inf)))
    results = np.array([exp(run) for run in runs])
    assert (np.diff(results, axis=0) >= -np.spacing(results[1:])).all()


def test_exp_into_takes_shift_and_scale(dtype: str) -> None:
    """Of what is left of the shift, exp of the exact product with the scale."""
    real = np.dtype(dtype).type
    inp = np.linspace(-300, 8, 100_003).astype(dtype)
    out, scale, shift = np.empty_like(inp), real(0.25), real(8)
    total = _exp(out, inp, scale, shift)
    assert ulps(out, np.exp((inp - shift).astype(WIDER[dtype]) / 4)).max() <= MOST
    assert abs(total - out.sum(dtype=WIDER[dtype])) <= 1e3 * np.finfo(dtype).eps * total


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 33, 100])
def test_the_sum_is_of_these_elements_alone(dtype: str, n: int) -> None:
    """What lies behind the span has no part in it."""
    inp = np.random.default_rng(n).normal(size=n + 40).astype(dtype)
    inp[n:] = np.nan
    wanted = np.exp(inp[:n] - inp[:n].max()).sum(dtype=np.float64)
    assert abs(_exp_sum(inp, n) - wanted) <= n * np.finfo(dtype).eps * wanted


# ---------------------------------------------------------------------------------------------------------------- GELU


def gelu_arguments(dtype: str) -> Array:
    """Dense where it bends, at random, and of every size on the left and on the right."""
    rng = np.random.default_rng(2)
    sizes = np.ldexp(1.0, np.arange(-60, 60))
    return np.concatenate([np.linspace(-14, 14, 400_003), rng.normal(size=100_000), sizes, -sizes]).astype(dtype)


def gelu_formula(x: Array) -> tuple[Array, Array, Array]:
    """u, GELU and its derivative; x in wider arithmetic."""
    real = x.dtype.type
    root, cubic = np.sqrt(real(2) / np.arccos(real(-1))), real(44715) / real(1_000_000)
    u = root * (x + cubic * x**3)
    with np.errstate(over="ignore", under="ignore"):
        power = np.exp(-2 * np.abs(u))
        s = np.where(u > 0, 1, power) / (1 + power)
        slope = 2 * root * (1 + 3 * cubic * x * x)
        return u, x * s, s + x * slope * power / (1 + power) ** 2


def test_gelu_in_units_of_the_last_place(dtype: str) -> None:
    """x/2 (1 + tanh(u)) cancels for negative x; the kernel's form does not: the error stays relative to the result. It
    is 3 ulp, and on the left 7 more for each unit of u, for the rounding of -2u moves exp(-2u) by as much. So it is
    until exp(-2u) overflows: then the result is 0."""
    x = gelu_arguments(dtype)
    out = np.empty_like(x)
    get_backend("numba").gelu_forward(out.reshape(1, -1), x.reshape(1, -1))
    u, wanted, _ = gelu_formula(x.astype(WIDER[dtype]))
    inside = -2 * u < np.log(np.finfo(dtype).max) - 1
    assert (ulps(out[inside], wanted[inside]) <= 3 + 7 * np.maximum(0, -u[inside])).all()
    smallest = np.finfo(dtype).smallest_normal
    assert (np.abs(out[~inside]) <= 16 * smallest).all()
    assert (np.abs(wanted[~inside]) <= 16 * smallest).all()


def test_gelu_derivative_in_units_of_the_last_place(dtype: str) -> None:
    """On the right 3 ulp. On the left, where it has a zero, 2 eps: it is 1 at most, or a little more. Beyond its lowest
    point no two terms cancel, and the error is relative to the result as GELU's is."""
    x = gelu_arguments(dtype)
    dinp = np.empty_like(x)
    get_backend("numba").gelu_backward(dinp.reshape(1, -1), np.ones_like(x).reshape(1, -1), x.reshape(1, -1))
    u, _, wanted = gelu_formula(x.astype(WIDER[dtype]))
    assert ulps(dinp[x > 0], wanted[x > 0]).max() <= 3
    assert np.abs(dinp - wanted).max() <= 2 * np.finfo(dtype).eps
    far = (x < -1.5) & (-2 * u < np.log(np.finfo(dtype).max) - 1)
    assert (ulps(dinp[far], wanted[far]) <= 7 * (1 - u[far])).all()


# ----------------------------------------------------------------------------------------------- the exact form of GELU


def exact_gelu_formula(x: Array) -> tuple[Array, Array]:
    """x Φ(x) and its derivative; x in wider arithmetic. The tail is a continued fraction, or near 0 a series."""
    real = x.dtype.type
    size, root = np.abs(x), np.sqrt(2 * np.arccos(real(-1)))
    density = np.exp(-size * size / 2) / root
    fraction = size
    for n in range(300, 0, -1):
        fraction = size + n / fraction
    near, term = np.minimum(size, 3), np.minimum(size, 3)
    total = term
    for odd in range(3, 121, 2):
        term = term * near * near / odd
        total = total + term
    tail = np.where(size < 3, real(0.5) - density * total, density / np.where(size < 3, 1, fraction))
    below = np.where(x < 0, tail, 1 - tail)
    return x * below, np.where(x < 0, tail - size * density, 1 - (tail - size * density))


def test_exact_gelu_in_units_of_the_last_place(dtype: str) -> None:
    """4.5 ulp, and on the left a half more for each unit of x^2, whose rounding moves exp(-x^2/2) by as much, until the
    tail, which is exp(-x^2/2) / 95 or more, is denormal."""
    x = gelu_arguments(dtype)
    if dtype == "float64":
        x = np.concatenate([x, np.linspace(-37, -14, 50_001)])
    out = np.empty_like(x)
    get_backend("numba").gelu_erf_forward(out.reshape(1, -1), x.reshape(1, -1))
    with np.errstate(divide="ignore", invalid="ignore", under="ignore", over="ignore"):
        wanted, _ = exact_gelu_formula(x.astype(WIDER[dtype]))
    inside = x * x / 2 < -np.log(np.finfo(dtype).smallest_normal) - 5
    left, right = inside & (x < 0), x > 0
    assert (ulps(out[left], wanted[left]) <= 4.5 + x[left] ** 2 / 2).all()
    assert ulps(out[right], wanted[right]).max() <= 4.5
    assert (np.abs(out[x < 0][~inside[x < 0]]) <= 40_000 * np.finfo(dtype).smallest_normal).all()


def test_exact_gelu_derivative_in_units_of_the_last_place(dtype: str) -> None:
    """On the right 3 ulp. On the left, where it has a zero, 2 eps, and relative to itself beyond the lowest point."""
    x = gelu_arguments(dtype)
    dinp = np.empty_like(x)
    get_backend("numba").gelu_erf_backward(dinp.reshape(1, -1), np.ones_like(x).reshape(1, -1), x.reshape(1, -1))
    with np.errstate(divide="ignore", invalid="ignore", under="ignore", over="ignore"):
        _, wanted = exact_gelu_formula(x.astype(WIDER[dtype]))
    assert ulps(dinp[x > 0], wanted[x > 0]).max() <= 3
    assert np.abs(dinp - wanted).max() <= 2 * np.finfo(dtype).eps
    far = (x < -2) & (x * x / 2 < -np.log(np.finfo(dtype).smallest_normal) - 5)
    assert (ulps(dinp[far], wanted[far]) <= 4 + x[far] ** 2 / 2).all()


@pytest.mark.parametrize(("bits", "most"), [(32, 4e-9), (64, 1.5e-16)])
def test_mills_ratio_is_as_good_as_it_says(bits: int, most: float) -> None:
    k, _, far = normal.RATIO[bits]
    with localcontext(prec=40):
        for step in range(0, 400):
            a = Decimal(far) * step / 400
            value = Decimal(0)
            for coefficient in normal.ratio_polynomial(bits):
                value = value * (a - k) / (a + k) + Decimal(coefficient)
            assert abs(value / ((a + k) * normal._ratio(a)) - 1) <= most
