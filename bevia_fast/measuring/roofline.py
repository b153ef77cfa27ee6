"""The least time that the calls of a step can take on this machine, by what it reached in the same run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.contract import Cost
from ..reporter import Progress
from .competitor import Competitor
from .stopwatch import EVICT_BYTES


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


class Roofs:
    """What this machine reached, in the run, with so many threads."""

    def __init__(self, probe: Competitor, dtype: str, cold: bool) -> None:
        self.probe, self.dtype, self.cold = probe, dtype, cold
        self.gflops: float = probe.ask("peak", dtype=dtype, repeats=7)["gflops"]  # refuses more threads than there are
        self._bandwidths: dict[int, float] = {}

    def measure(self, nbytes: float) -> None:
        """Once more, beside a kernel that moves `nbytes`: a machine that was busy before may not be now."""
        self.gflops = max(self.gflops, self.probe.ask("peak", dtype=self.dtype, repeats=3)["gflops"])
        answer = self.probe.ask("triad", nbytes=min(self._working_set(nbytes), EVICT_BYTES), dtype=self.dtype)
        known = self._bandwidths.get(self._working_set(nbytes), 0.0)
        self._bandwidths[self._working_set(nbytes)] = max(known, answer["gbytes_per_s"])

    def gbytes_per_s(self, nbytes: float) -> float:
        """The bandwidth of whatever holds a working set of `nbytes`: a cache, or memory."""
        return self._bandwidths[self._working_set(nbytes)]

    def _working_set(self, nbytes: float) -> int:
        return EVICT_BYTES if self.cold else int(nbytes)
