"""The least time that a kernel call can take on this machine, from peak and bandwidth measured in the same run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.contract import Cost
from ..reporter import Progress
from .competitor import Competitor
from .stopwatch import EVICT_BYTES

LEAST_BYTES = 1 << 14  # half of a small first-level cache


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

    The bandwidth for a call comes from a triad over arrays of as many bytes, rounded down to a power of 2. That leaves
    fewer sizes to measure, and the cache that holds the arrays is never a slower one.
    """
    costs = tuple(costs)
    sizes = {cost: float(1 << int(cost.working_set).bit_length() - 1) for cost in costs}
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
        """Measure the peak again, and the bandwidth for a kernel whose arrays have `nbytes`, each counted once: so many
        bytes must a cache hold, however often they move. The best values count, because the machine may have been busy
        before."""
        size = self.triad_bytes(nbytes)
        self.gflops = max(self.gflops, self.probe.ask("peak", dtype=self.dtype, repeats=3)["gflops"])
        answer = self.probe.ask("triad", nbytes=size, dtype="float32" if self.dtype == "bf16" else self.dtype)
        self._bandwidths[size] = max(self._bandwidths.get(size, 0.0), answer["gbytes_per_s"])

    def gbytes_per_s(self, nbytes: float) -> float:
        """Return the bandwidth of the cache or memory that holds arrays of `nbytes`."""
        return self._bandwidths[self.triad_bytes(nbytes)]

    def triad_bytes(self, nbytes: float) -> int:
        """Return the bytes of the triad that stands for arrays of `nbytes`: not more than empty all caches, nor so few
        that the loop around the triad takes longer than the triad."""
        return EVICT_BYTES if self.cold else int(min(max(nbytes, LEAST_BYTES), EVICT_BYTES))
