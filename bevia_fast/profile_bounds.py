"""The least time that the calls of a step can take on this machine, by what it reached in the same run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .bench_client import Progress
from .bench_kernels import Roofs
from .kernels.contract import Cost


@dataclass(frozen=True)
class Bound:
    """Nanoseconds that a call takes at least. `by`: "compute", if its arithmetic sets them, or "memory"."""

    ns: float
    by: str

    @classmethod
    def of(cls, cost: Cost, gflops: float, gbytes_per_s: float) -> Bound:
        compute, memory = cost.flops / gflops, cost.bytes / gbytes_per_s
        return cls(compute, "compute") if compute >= memory else cls(memory, "memory")

    @classmethod
    def sum(cls, bounds: Iterable[Bound]) -> Bound:
        """Of several calls: `by` what sets the larger part."""
        parts = {"compute": 0.0, "memory": 0.0}
        for bound in bounds:
            parts[bound.by] += bound.ns
        return cls(sum(parts.values()), max(parts, key=lambda by: parts[by]))


def measure_bounds(costs: Iterable[Cost], roofs: Roofs, progress: Progress) -> tuple[Bound, ...]:
    """One for each cost. Bytes are held against the triad over arrays that are as large all together, or up to half as
    large: there are fewer sizes to measure then, and the cache that holds them is not a slower one."""
    costs = tuple(costs)
    sizes = {cost: float(1 << int(cost.bytes).bit_length() - 1) for cost in costs}
    for number, size in enumerate(distinct := sorted(set(sizes.values()))):
        progress.advance(number, len(distinct))
        roofs.measure(size)
    return tuple(Bound.of(cost, roofs.gflops, roofs.gbytes_per_s(sizes[cost])) for cost in costs)
