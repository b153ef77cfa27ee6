"""Polynomials in place of functions that CPUs do not have: their coefficients, and their values for vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal

from .vector import Lanes, Vec


def polynomial(lanes: Lanes, x: Vec, coefficients: Sequence[float]) -> Vec:
    """Horner's scheme, highest power first."""
    result = lanes.vec(coefficients[0])
    for coefficient in coefficients[1:]:
        result = lanes.fma(result, x, coefficient)
    return result


def interpolated(function: Callable[[Decimal], Decimal], low: Decimal, high: Decimal, degree: int) -> list[float]:
    """The coefficients of the polynomial that meets a function at the Chebyshev nodes of low .. high, highest power
    first.

    Computed in the caller's decimal context, which must be precise enough for correctly rounded doubles.
    """
    middle, half = (high + low) / 2, (high - low) / 2
    cosines = [math.cos(math.pi * (2 * i + 1) / (2 * degree + 2)) for i in range(degree + 1)]
    nodes = [middle + half * Decimal(cosine) for cosine in cosines]
    values = [function(node) for node in nodes]
    # Newton's divided differences, then expanded into powers
    for order in range(1, degree + 1):
        for i in range(degree, order - 1, -1):
            values[i] = (values[i] - values[i - 1]) / (nodes[i] - nodes[i - order])
    powers = [values[degree]]
    for i in range(degree - 1, -1, -1):
        powers = [Decimal(0), *powers]
        for j in range(len(powers) - 1):
            powers[j] -= nodes[i] * powers[j + 1]
        powers[0] += values[i]
    return [float(power) for power in reversed(powers)]
