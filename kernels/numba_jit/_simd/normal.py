"""GELU in its exact form, x Φ(x), with the normal distribution's Φ(x) = (1 + erf(x/sqrt(2)))/2.

For a = |x|, the tail beyond a is 1 - Φ(a) = exp(-a^2/2) R(a). Mills' ratio R falls smoothly from 1/2 to about
1/(a sqrt(2 pi)), so (a + k) R(a) is nearly constant, and a polynomial in t = (a - k)/(a + k), which takes all a from 0
on to -1 .. 1 (Shepherd & Laframboise 1981). The tail is never a difference, so it loses no digits for negative x.
"""

from __future__ import annotations

import functools
from decimal import Decimal, localcontext

from .exponential import exp_of
from .passes import elementwise
from .polynomials import interpolated, polynomial
from .vector import Lanes, Vec

ROOT_2_PI = Decimal("2.5066282746310005024157652848110452530069867406099")
# By bits of an element: k, the degree, and an a beyond which exp(-a^2/2) is 0. The error of R is at most 4e-9 in
# float32 and 1.5e-16 in float64, a fraction of a unit in the last place. With a larger k, fewer terms would do, but the
# rounding of t near -1 would cost up to 3 units more.
RATIO = {32: (2, 11, 15), 64: (2, 30, 39)}


@elementwise
def gelu_erf(lanes, x):
    """gelu_erf(out, x):  out[i] = x Φ(x),  with x for x[i]"""
    power, ratio = _tail(lanes, x)
    tail = power * ratio
    return x * tail.where(x.compare("<", 0.0), lanes.vec(1.0) - tail)


@elementwise
def gelu_erf_gradient(lanes, dout, x):
    """gelu_erf_gradient(dx, dout, x):  dx[i] = dout[i] (Φ(x) + x φ(x)),  with x for x[i]

    φ(x) = exp(-x^2/2) / sqrt(2 pi). For x >= 0 the bracket is 1 + g, for x < 0 it is -g, with g = a φ(a) - (1 - Φ(a)).
    """
    power, ratio = _tail(lanes, x)
    g = power * lanes.fma(_size(lanes, x), 1 / float(ROOT_2_PI), -ratio)
    return dout * (-g).where(x.compare("<", 0.0), g + 1.0)


def _tail(lanes: Lanes, x: Vec) -> tuple[Vec, Vec]:
    """exp(-a^2/2) and R(a), for a = |x|"""
    k, _, _ = RATIO[lanes.bits]
    reciprocal = lanes.vec(1.0) / (_size(lanes, x) + float(k))
    t = lanes.fma(reciprocal, -2.0 * k, 1.0)
    return exp_of(lanes, 0.5)(-(x * x)), polynomial(lanes, t, ratio_polynomial(lanes.bits)) * reciprocal


def _size(lanes: Lanes, x: Vec) -> Vec:
    """|x|"""
    return lanes.maximum(x, -x)


@functools.cache
def ratio_polynomial(bits: int) -> list[float]:
    """The coefficients of (a + k) R(a) as a polynomial in t, highest power first."""
    k, degree, most = RATIO[bits]

    def of(t: Decimal) -> Decimal:
        a = k * (1 + t) / (1 - t)
        return (a + k) * _ratio(a)

    with localcontext(prec=60):
        return interpolated(of, Decimal(-1), Decimal(most - k) / (most + k), degree)


def _ratio(a: Decimal) -> Decimal:
    """R(a): for small a, 1/2 less the series of Φ(a) - 1/2, as in `numpy_ref.activation`; else Laplace's continued
    fraction 1/(a + 1/(a + 2/(a + 3/(a + ...)))) / sqrt(2 pi)."""
    if a < 2:
        term = total = a
        odd = 1
        while term > Decimal("1e-50"):
            odd += 2
            term *= a * a / odd
            total += term
        return (a * a / 2).exp() / 2 - total / ROOT_2_PI
    denominator = a
    for n in range(400, 0, -1):
        denominator = a + n / denominator
    return 1 / (denominator * ROOT_2_PI)
