from __future__ import annotations

from typing import Any, cast

import pytest

from bevia_fast.kernels.contract import Cost
from bevia_fast.measuring.roofline import Bound, Roofs, measure_bounds
from bevia_fast.reporter import Progress


class Machine:
    """Roofs that need not be measured: 100 GFLOP/s, and a cache of 1,024 bytes ten times as fast as memory."""

    gflops = 100.0

    def __init__(self) -> None:
        self.measured: list[float] = []

    def measure(self, nbytes: float) -> None:
        self.measured.append(nbytes)

    def gbytes_per_s(self, nbytes: float) -> float:
        assert nbytes in self.measured
        return 500.0 if nbytes <= 1024 else 50.0


def bounds(*costs: Cost) -> tuple[tuple[Bound, ...], list[float]]:
    machine: Any = Machine()
    return measure_bounds(costs, cast(Roofs, machine), Progress()), machine.measured


def test_a_call_takes_what_its_arithmetic_or_its_bytes_take() -> None:
    (product, copy), _ = bounds(Cost(4e6, 1e5), Cost(1e3, 1e5))
    assert product == Bound(pytest.approx(4e4), "compute")
    assert copy == Bound(pytest.approx(2e3), "memory")


def test_bytes_are_held_against_the_cache_that_holds_them() -> None:
    """By powers of two, downwards: each is measured once, and what fits into a cache is not held against memory."""
    (small, other, large), measured = bounds(Cost(0.0, 1500.0), Cost(0.0, 1024.0), Cost(0.0, 3000.0))
    assert measured == [1024.0, 2048.0]
    assert [small.ns, other.ns, large.ns] == pytest.approx([3.0, 1024 / 500, 60.0])


def test_of_several_calls_the_larger_part_names_the_bound() -> None:
    total = Bound.sum([Bound(2.0, "memory"), Bound(3.0, "compute"), Bound(2.0, "memory")])
    assert total == Bound(7.0, "memory")
