"""The least time that a kernel call can take on this machine, from peak and bandwidth measured in the same run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.contract import Cost
from ..reporter import Progress
from .competitor import Competitor
from .stopwatch import EVICT_BYTES


@dataclass(frozen=True)
class Bound:
    """The least time of a call in nanoseconds. `by`: what limits it, "compute" or "memory"."""

    ns: float
    by: str

    @classmethod
    def of(cls, cost: Cost, gflops: float, gbytes_per_s: float) -> Bound:
        compute, memory = cost.flops / gflops, cost.bytes / gbytes_per_s
        return cls(compute, "compute") if compute >= memory else cls(memory, "memory")

    @classmethod
    def sum(cls, bounds: Iterable[Bound]) -> Bound:
        """Return the bound of several calls together; `by` names what limits the larger part."""
        parts = {"compute": 0.0, "memory": 0.0}
        for bound in bounds:
            parts[bound.by] += bound.ns
        return cls(sum(parts.values()), max(parts, key=lambda by: parts[by]))


def measure_bounds(costs: Iterable[Cost], roofs: Roofs, progress: Progress) -> tuple[Bound, ...]:
    """Measure the roofs that these costs need, and return a bound for each cost.

    The bandwidth for a call comes from a triad whose arrays together have as many bytes, rounded down to a power of 2.
    That leaves fewer sizes to measure, and the cache that holds the arrays is never a slower one.
    """
    costs = tuple(costs)
    sizes = {cost: float(1 << int(cost.bytes).bit_length() - 1) for cost in costs}
    for number, size in enumerate(distinct := sorted(set(sizes.values()))):
        progress.advance(number, len(distinct))
        roofs.measure(size)
    return tuple(Bound.of(cost, roofs.gflops, roofs.gbytes_per_s(sizes[cost])) for cost in costs)


class Roofs:
    """The peak and the bandwidths that this machine reaches in this run, with the threads of `probe`."""

    def __init__(self, probe: Competitor, dtype: str, cold: bool) -> None:
        self.probe, self.dtype, self.cold = probe, dtype, cold
        # this also refuses more threads than the machine has
        self.gflops: float = probe.ask("peak", dtype=dtype, repeats=7)["gflops"]
        self._bandwidths: dict[int, float] = {}

    def measure(self, nbytes: float) -> None:
        """Measure the peak again, and the bandwidth for a kernel that moves `nbytes`. The best values count, because
        the machine may have been busy before."""
        self.gflops = max(self.gflops, self.probe.ask("peak", dtype=self.dtype, repeats=3)["gflops"])
        answer = self.probe.ask("triad", nbytes=min(self._working_set(nbytes), EVICT_BYTES), dtype=self.dtype)
        known = self._bandwidths.get(self._working_set(nbytes), 0.0)
        self._bandwidths[self._working_set(nbytes)] = max(known, answer["gbytes_per_s"])

    def gbytes_per_s(self, nbytes: float) -> float:
        """Return the bandwidth of the cache or memory that holds a working set of `nbytes`."""
        return self._bandwidths[self._working_set(nbytes)]

    def _working_set(self, nbytes: float) -> int:
        return EVICT_BYTES if self.cold else int(nbytes)
