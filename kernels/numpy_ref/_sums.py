"""Sums over many rows."""

from __future__ import annotations

from ..contract import Array

FEW = 128  # rows; so few are added one after the other


def sum_of_rows(x: Array) -> Array:
    """(N,...) -> (...): the sum over the first axis, in halves.

    Added one after the other, small rows are lost beside a sum of thousands: the error grows with N, in halves with log
    N (Higham 1993, pairwise summation). NumPy does so only along the last axis.
    """
    if len(x) <= FEW:
        total: Array = x.sum(axis=0)
        return total
    half = len(x) // 2
    return sum_of_rows(x[:half]) + sum_of_rows(x[half:])
