"""Activations: ReLU, and GELU in two forms: the tanh form of GPT-2, and the exact one.

GELU(x) = x Φ(x), where Φ is the cumulative distribution function of the standard normal distribution (Hendrycks &
Gimpel 2016, arXiv:1606.08415). The tanh form approximates Φ to within 3e-4. Exactly, Φ(x) = (1 + erf(x/sqrt(2)))/2: the
error function is the integral of the bell curve exp(-t^2/2), which no formula of elementary functions gives.
"""

from __future__ import annotations

import math

import numpy as np

from .. import contract
from ..contract import Array, implements

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715
SQRT_2_PI = math.sqrt(2 * math.pi)
ALL = 9.0  # from here on, Φ is 1 in float64: Φ(9) = 1 - 1e-19


def relu(x: Array) -> Array:
    """max(x, 0)"""
    result: Array = np.maximum(x, 0)  # np.maximum returns NaN where either operand is NaN
    return result


def relu_gradient(dout: Array, x: Array) -> Array:
    """dout where x > 0, else 0. ReLU has no derivative at 0; 0 is the usual choice."""
    return np.where(x > 0, dout, 0)


def gelu(x: Array) -> Array:
    """x/2 (1 + tanh(u)),  u = sqrt(2/pi) (x + 0.044715 x^3)"""
    u = SQRT_2_OVER_PI * (x + CUBIC * (x * x * x))
    result: Array = 0.5 * x * (1 + np.tanh(u))
    return result


def gelu_gradient(dout: Array, x: Array) -> Array:
    """dout * ((1 + tanh(u))/2 + x/2 (1 - tanh(u)^2) du/dx),  du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2)"""
    u = SQRT_2_OVER_PI * (x + CUBIC * (x * x * x))
    du = SQRT_2_OVER_PI * (1 + 3 * CUBIC * (x * x))
    tanh = np.tanh(u)
    # 1 - tanh(u)^2 is the derivative of tanh; the equal 1/cosh(u)^2 would overflow for large u
    result: Array = dout * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)
    return result


def normal_cdf(x: Array) -> Array:
    """Φ(x) = (1 + erf(x/sqrt(2)))/2,  erf(x/sqrt(2))/2 = φ(x) (x + x^3/3 + x^5/(3*5) + x^7/(3*5*7) + ...)

    The derivative of the series S is 1 + x S, so that of φ S is φ, because φ' = -x φ (Marsaglia 2004, "Evaluating the
    normal distribution"). All its terms have the sign of x: nothing cancels in the sum.
    """
    size = np.minimum(np.abs(x), ALL)
    square, term, total, odd = size * size, size.copy(), size.copy(), 1
    enough = np.finfo(x.dtype).eps / 4  # a term that is smaller in proportion does not change the sum
    while (term > enough * total).any():
        odd += 2
        term *= square
        term /= odd
        total += term
    half_erf = np.where(size < ALL, normal_density(size) * total, 0.5)
    result: Array = 0.5 + np.copysign(half_erf, x)
    return result


def normal_density(x: Array) -> Array:
    """φ(x) = exp(-x^2/2) / sqrt(2 pi), the derivative of Φ"""
    result: Array = np.exp(-0.5 * (x * x)) / SQRT_2_PI
    return result


def gelu_erf(x: Array) -> Array:
    """x Φ(x)"""
    return x * normal_cdf(x)


def gelu_erf_gradient(dout: Array, x: Array) -> Array:
    """dout * (Φ(x) + x φ(x))"""
    result: Array = dout * (normal_cdf(x) + x * normal_density(x))
    return result


@implements(contract.relu_forward)
def relu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    out[...] = relu(inp)


@implements(contract.relu_backward)
def relu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    # forward: out = max(inp, 0)
    dinp[...] = relu_gradient(dout, inp)


@implements(contract.gelu_forward)
def gelu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    out[...] = gelu(inp)


@implements(contract.gelu_backward)
def gelu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    # forward: out = gelu(inp)
    dinp[...] = gelu_gradient(dout, inp)


@implements(contract.gelu_erf_forward)
def gelu_erf_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    out[...] = gelu_erf(inp)


@implements(contract.gelu_erf_backward)
def gelu_erf_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    # forward: out = gelu_erf(inp)
    dinp[...] = gelu_erf_gradient(dout, inp)
