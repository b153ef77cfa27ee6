"""The rules of timing, for every command and for `bench/`.

1. The clock is `time.perf_counter_ns`, which is monotonic and never adjusted during a measurement.
2. The first call, which compiles the kernels or loads them from the cache, is timed and reported separately.
3. Warm-up calls follow, which do not count, until times are stable: until the median of `window` calls is within
   `stable` of the median of the `window` calls before, or `warmup_seconds` have passed.
4. Competitors take turns, A B A B ..., so that a machine that slows down half-way affects them equally. Each competitor
   is a process of its own, which waits without computing until its next turn.
5. A turn begins with a call that does not count, because the other competitors have used the caches. Then calls count,
   until there are `repeats` of them and the turn has used its share of `seconds`.
6. A sample is at least `shortest_ns` long; several calls of a faster function make one sample.
7. The figures reported are the median over the samples of all turns, and the 20th and 80th percentiles. They are never
   the mean, which a single interruption moves, nor the minimum, which nobody gets in practice.
8. If two times differ only a little, single calls of both take turns. The figure reported is then the median of the
   ratios of neighbors, with its 95 % confidence interval.
9. For a function slower than `slow_ns`, a single call is a window of the warm-up, and a turn may be a single call with
   no call before it, since filling the caches takes a small part of such a call. Once it has `repeats` samples and has
   used `seconds`, it skips its remaining turns.
10. Before and after each turn of a training step, a probe measures the arithmetic of all threads in registers and the
    time to start and end a parallel loop. A turn counts if both are near the best of the run. Other turns are repeated,
    up to twice the number of turns in total; see `turns`.
11. Caches are warm: a call finds there what the previous call left. With `cold`, a thread on each core writes memory
    larger than the caches before each call, which is not timed.
12. Sizes that grow until memory runs out are timed without turns, each alone in its own process (`bench contexts`), and
    again if the machine was busy. For a function slower than `alone_ns` a single call is then enough, after the first.
13. The peak of the machine is the highest value of all probes in the run with the same number of threads, where a probe
    multiplies and adds in vector registers and does nothing else. Probes run before and between the measurements, or
    around each turn. All fractions of the peak refer to this value.

This module uses only the standard library, because the interpreter of a peer has no other dependency of ours.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

clock = time.perf_counter_ns

EVICT_BYTES = 256 << 20  # larger than the last cache of any laptop
EVICT_CHUNK = 64 << 10  # a single memset of more bytes may bypass the caches


@dataclass(frozen=True)
class Rules:
    """The numbers in the rules above."""

    turns: int = 5
    repeats: int = 3  # samples per turn, at least
    seconds: float = 3.0  # for all turns together, at least
    warmup_seconds: float = 2.0
    window: int = 3
    stable: float = 0.05
    shortest_ns: int = 100_000
    slow_ns: int = 400_000_000
    alone_ns: int = 10_000_000_000
    cold: bool = False


@dataclass(frozen=True)
class Summary:
    """Percentiles of many samples, in nanoseconds per call."""

    median: float
    p20: float
    p80: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Summarise samples. Raises ValueError if there are none."""
        if not samples:
            raise ValueError("nothing was timed")
        ordered = sorted(samples)
        median, p20, p80 = (percentile(ordered, share) for share in (0.5, 0.2, 0.8))
        return cls(median, p20, p80, len(ordered))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie, interpolating linearly between neighbors."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Ratio:
    """The median of many ratios, and its confidence interval of at least 95 %."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """Compute median and interval. Each ratio is equally likely to be below or above the true median, whatever
        their distribution, so the number below is binomial, and the interval ends at two of the ratios. For fewer than
        six ratios the interval is their whole range."""
        ordered, n = sorted(ratios), len(ratios)
        outside = max(0, int(n / 2 - 0.98 * n**0.5))  # 1.96 standard deviations of sqrt(n) / 2
        return cls(percentile(ordered, 0.5), ordered[outside], ordered[-1 - outside])

    @property
    def width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


class Stopwatch:
    """Times one function by the rules."""

    def __init__(self, function: Callable[[], object], rules: Rules | None = None) -> None:
        """Make the first call, and note its seconds as `first_s`."""
        self.function, self.rules = function, rules or Rules()
        self.first_s = self._once() / 1e9
        self.calls = 1  # per sample
        self.slow = False
        self._evictor: CacheEvictor | None = None

    def _once(self) -> int:
        before = clock()
        self.function()
        return clock() - before

    def warm_up(self) -> int:
        """Call until the times are stable; return the number of calls."""
        rules, began = self.rules, clock()
        times: list[int] = []
        earlier = None
        while True:
            recent = [self._once()]
            if recent[0] <= rules.slow_ns:
                recent += [self._once() for _ in range(rules.window - 1)]
            times += recent
            now = Summary.of(recent).median
            settled = earlier is not None and abs(now - earlier) <= rules.stable * earlier
            if settled or clock() - began > rules.warmup_seconds * 1e9:
                break
            earlier = now
        self.slow = now > rules.slow_ns
        self.calls = 1 if rules.cold else max(1, round(rules.shortest_ns / max(now, 1.0)))
        return len(times)

    def turn(self) -> list[float]:
        """Run one turn and return its samples, in nanoseconds per call."""
        rules, function, calls = self.rules, self.function, self.calls
        share, least = rules.seconds / rules.turns * 1e9, 1 if self.slow else rules.repeats
        if not self.slow:
            function()
        if rules.cold and self._evictor is None:
            self._evictor = CacheEvictor()
        samples: list[float] = []
        began = clock()
        while len(samples) < least or clock() - began < share:
            if self._evictor is not None:
                self._evictor.evict()
            before = clock()
            for _ in range(calls):
                function()
            samples.append((clock() - before) / calls)
        return samples

    def alone(self) -> list[float]:
        """Time a function that has no competitor to take turns with, and return all samples."""
        rules = self.rules
        self.slow = self.first_s * 1e9 > rules.alone_ns
        if not self.slow:
            self.warm_up()
        samples = self.turn()
        while len(samples) < rules.repeats and samples[-1] <= rules.alone_ns:
            samples += self.turn()
        return samples


class CacheEvictor:
    """Empties the caches by writing memory larger than they are, from each core, as each has caches of its own."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, EVICT_BYTES)
        self._start = ctypes.addressof((ctypes.c_char * EVICT_BYTES).from_buffer(self.memory))
        can_choose = hasattr(os, "sched_setaffinity")
        self.cores = sorted(os.sched_getaffinity(0)) if can_choose else [None] * (os.cpu_count() or 1)

    def evict(self) -> None:
        """Replace everything in the caches."""
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(len(self.cores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, number: int) -> None:
        core, chunks = self.cores[number], range(number, EVICT_BYTES // EVICT_CHUNK, len(self.cores))
        if core is not None:
            os.sched_setaffinity(0, {core})  # only this thread
        for chunk in chunks:
            ctypes.memset(self._start + chunk * EVICT_CHUNK, 1, EVICT_CHUNK)  # releases the GIL for the other threads


def is_done(samples: Sequence[float], rules: Rules) -> bool:
    """Whether a slow function has enough samples to skip its remaining turns."""
    enough = len(samples) >= rules.repeats and sum(samples) >= rules.seconds * 1e9
    return enough and min(samples) > rules.slow_ns
