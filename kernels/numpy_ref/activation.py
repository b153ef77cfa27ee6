"""Activations: ReLU, and GELU in the tanh form of GPT-2.

GELU(x) = x Φ(x), where Φ is the cumulative distribution function of the standard normal distribution (Hendrycks &
Gimpel 2016, arXiv:1606.08415). The tanh form approximates Φ to within 3e-4.
"""

from __future__ import annotations

import math

import numpy as np

from .. import contract
from ..contract import Array, implements

SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


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
