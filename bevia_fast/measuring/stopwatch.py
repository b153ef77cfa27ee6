"""How time is measured here: the one place where the rules stand, for every command and for `bench/`.

1. The clock is `time.perf_counter_ns`: it never goes back and is not adjusted while we look.
2. The first call, in which kernels are compiled or read from the cache, is timed apart and reported apart.
3. Then come calls that are not counted, until they are stable: until the median of `window` calls is within `stable`
   of the median of the `window` before, or `warmup_seconds` have passed.
4. What is compared takes turns, A B A B ...: a machine that slows down half-way is then as unkind to one as to the
   other. Each competitor is a process of its own that waits, without computing, while it is not its turn.
5. A turn begins with a call that is not counted, for the others have had the caches. Then calls are counted until there
   are `repeats` of them and the turn has its share of `seconds`.
6. A sample is at least `shortest_ns` long; of a faster function several calls make one sample.
7. Reported are the median over the samples of all turns, and the 20th and 80th percentile; never the mean, which one
   interruption moves, and never the fastest, which nobody gets.
8. Where two times differ by little, single calls of both take turns, and what is reported is the median of the ratios
   of neighbours, with the interval in which it lies at 95 %.
9. Of a function that takes longer than `slow_ns`, a call is a window of the warm-up, and a turn need not be more than
   one call and begins with it: caches fill in a small part of such a call. With `repeats` samples, and its share of
   `seconds`, it leaves the further turns to the others.
10. Before and after each turn of a training step, a probe looks at what all threads do in registers, and at what it
   takes to begin and end a parallel loop. A turn counts if both are near the best of the run, and is made again if
   not, until there are twice as many turns; see `turns`.
11. Caches are warm: a call finds what the call before it left there. With `cold`, memory larger than the caches is
    written before each call, by a thread on each core, outside of the clock.
12. What grows until memory ends is timed alone, in a process for each size, without turns (`bench contexts`), and again
    if the machine gave less then. Of a function that takes longer than `alone_ns`, one call is then enough, and only
    the first comes before it.
13. The peak of the machine is the most that any of the probes of the run reached, with as many threads: vector units
    that multiply and add in registers and do nothing else. Probes are taken before and between what is timed, or
    around each turn. All fractions of the peak are of this one.

Only the standard library is used, for a peer's interpreter has nothing else of ours.
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
EVICT_CHUNK = 64 << 10  # larger spans at once may be written past the caches


@dataclass(frozen=True)
class Rules:
    """The numbers in the rules above."""

    turns: int = 5
    repeats: int = 3  # samples of a turn, at least
    seconds: float = 3.0  # of all turns together, at least
    warmup_seconds: float = 2.0
    window: int = 3
    stable: float = 0.05
    shortest_ns: int = 100_000
    slow_ns: int = 400_000_000
    alone_ns: int = 10_000_000_000
    cold: bool = False


@dataclass(frozen=True)
class Summary:
    """Percentiles of many samples, in nanoseconds a call."""

    median: float
    p20: float
    p80: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Raises ValueError without samples."""
        if not samples:
            raise ValueError("nothing was timed")
        ordered = sorted(samples)
        median, p20, p80 = (percentile(ordered, share) for share in (0.5, 0.2, 0.8))
        return cls(median, p20, p80, len(ordered))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, on a straight line between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Ratio:
    """The median of many ratios, and an interval that holds it with a probability of 95 % or more."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Ratio:
        """The interval lies between two of the ratios: each is as likely to be below the median as above it, whatever
        their distribution, so how many are below is binomial. Fewer than six ratios are too few: it is their range."""
        ordered, n = sorted(ratios), len(ratios)
        outside = max(0, int(n / 2 - 0.98 * n**0.5))  # 1.96 standard deviations of sqrt(n) / 2
        return cls(percentile(ordered, 0.5), ordered[outside], ordered[-1 - outside])

    @property
    def width(self) -> float:
        """Half the interval's."""
        return (self.high - self.low) / 2


class Stopwatch:
    """One function, timed by the rules."""

    def __init__(self, function: Callable[[], object], rules: Rules | None = None) -> None:
        """Makes the first call. `first_s` is what it took, in seconds; the caller may add what came before it."""
        self.function, self.rules = function, rules or Rules()
        self.first_s = self._once() / 1e9
        self.calls = 1  # that make a sample
        self.slow = False
        self._broom: Broom | None = None

    def _once(self) -> int:
        before = clock()
        self.function()
        return clock() - before

    def warm_up(self) -> int:
        """Call until the times are stable; returns how many calls it took."""
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
        """The samples of one turn, in nanoseconds a call."""
        rules, function, calls = self.rules, self.function, self.calls
        share, least = rules.seconds / rules.turns * 1e9, 1 if self.slow else rules.repeats
        if not self.slow:
            function()
        if rules.cold and self._broom is None:
            self._broom = Broom()
        samples: list[float] = []
        began = clock()
        while len(samples) < least or clock() - began < share:
            if self._broom is not None:
                self._broom.sweep()
            before = clock()
            for _ in range(calls):
                function()
            samples.append((clock() - before) / calls)
        return samples

    def alone(self) -> list[float]:
        """All samples of a function that has nobody to take turns with."""
        rules = self.rules
        self.slow = self.first_s * 1e9 > rules.alone_ns
        if not self.slow:
            self.warm_up()
        samples = self.turn()
        while len(samples) < rules.repeats and samples[-1] <= rules.alone_ns:
            samples += self.turn()
        return samples


class Broom:
    """Memory larger than the caches, to be written to by a thread on each core, for each core has caches of its own."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, EVICT_BYTES)
        self._start = ctypes.addressof((ctypes.c_char * EVICT_BYTES).from_buffer(self.memory))
        can_choose = hasattr(os, "sched_setaffinity")
        self.cores = sorted(os.sched_getaffinity(0)) if can_choose else [None] * (os.cpu_count() or 1)

    def sweep(self) -> None:
        """Leave nothing else in the caches."""
        threads = [threading.Thread(target=self._write, args=(number,)) for number in range(len(self.cores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _write(self, number: int) -> None:
        core, chunks = self.cores[number], range(number, EVICT_BYTES // EVICT_CHUNK, len(self.cores))
        if core is not None:
            os.sched_setaffinity(0, {core})  # of this thread alone
        for chunk in chunks:
            ctypes.memset(self._start + chunk * EVICT_CHUNK, 1, EVICT_CHUNK)  # the other threads write meanwhile


def is_done(samples: Sequence[float], rules: Rules) -> bool:
    """Whether a slow function, timed in turns, needs no more of them."""
    enough = len(samples) >= rules.repeats and sum(samples) >= rules.seconds * 1e9
    return enough and min(samples) > rules.slow_ns
