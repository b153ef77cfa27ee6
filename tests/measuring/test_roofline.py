"""Bounds on the time of a call, from the roofs of the machine."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bevia_fast.kernels.contract import OPERATIONS, Cost
from bevia_fast.measuring.roofline import LEAST_BYTES, Bound, Roofs, measure_bounds
from bevia_fast.measuring.stopwatch import EVICT_BYTES
from bevia_fast.reporter import Progress


class Machine:
    """Fake roofs: 100 GFLOP/s, and a cache of 1,024 bytes ten times as fast as memory."""

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


def test_a_call_is_bound_by_its_arithmetic_or_by_its_bytes() -> None:
    (product, copy), _ = bounds(Cost(4e6, 1e5), Cost(1e3, 1e5))
    assert product == Bound(pytest.approx(4e4), "compute")
    assert copy == Bound(pytest.approx(2e3), "memory")


def test_bytes_are_bound_by_the_cache_that_holds_them() -> None:
    """Sizes are rounded down to powers of 2. Each is measured once, and bytes in a cache are not bound by memory."""
    (small, other, large), measured = bounds(Cost(0.0, 1500.0), Cost(0.0, 1024.0), Cost(0.0, 3000.0))
    assert measured == [1024.0, 2048.0]
    assert [small.ns, other.ns, large.ns] == pytest.approx([3.0, 1024 / 500, 60.0])


def test_arrays_that_move_twice_fit_into_a_cache_once() -> None:
    """As those that adamw updates: what decides is how many bytes a cache must hold, not how many move."""
    (update,), measured = bounds(Cost(0.0, 1500.0, 1000.0))
    assert measured == [512.0]
    assert update.ns == pytest.approx(3.0)
    entry = OPERATIONS["adamw"]
    cost = entry.cost_of({"P": 100}, (), "float32", {"decayed": 100})
    assert (cost.bytes, cost.working_set) == (8 * 400, 4 * 400)


class Probe:
    """A competitor that measures no triad over fewer bytes than make sense."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def ask(self, what: str, **request: Any) -> dict[str, float]:
        if what == "peak":
            return {"gflops": 100.0}
        self.sizes.append(request["nbytes"])
        return {"gbytes_per_s": 50.0}


def test_a_triad_is_neither_too_short_to_be_timed_nor_larger_than_all_caches() -> None:
    for cold, wanted in ((False, [LEAST_BYTES, 10**6, EVICT_BYTES]), (True, [EVICT_BYTES] * 3)):
        probe: Any = Probe()
        roofs = Roofs(probe, "float32", cold)
        for nbytes in (260, 10**6, 10**12):
            roofs.measure(nbytes)
            assert roofs.gbytes_per_s(nbytes) == 50.0
        assert probe.sizes == wanted


def test_the_larger_part_names_the_bound_of_several_calls() -> None:
    total = Bound.sum([Bound(2.0, "memory"), Bound(3.0, "compute"), Bound(2.0, "memory")])
    assert total == Bound(7.0, "memory")
