"""Let competitors take turns, and leave out the turns in which the machine was busy.

The host of a virtual machine decides where its cores run. For a while two of them may be the two hardware threads of
one core, each at half its speed, or they may be on two chips, where data written by one takes six times as long to
reach the other. The operating system does not report this. If it happens during the turns of one competitor, the
comparison is unfair; if it happens now and then to all of them, their medians mix two kinds of machine. So a probe
measures the machine before and after each turn.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..reporter import Progress
from .competitor import Competitor, CompetitorError
from .stopwatch import Rules, Summary, is_done

SETTLE = 0.15  # seconds after a turn until its threads stop spinning: those of OpenBLAS spin for a tenth of a second
LEAST_RATE, MOST_LOOP = 0.9, 1.7  # as multiples of the best of the run: readings repeat to 2 % and to 20 %
PATIENCE = 2  # at most so many times the turns asked for, until as many count as were asked for


@dataclass(frozen=True)
class Reading:
    """What a probe measured with `threads` threads: `gflops`, the multiply-adds in registers of all of them together,
    and `loop_s`, the seconds that an empty parallel loop takes."""

    threads: int
    gflops: float
    loop_s: float

    @classmethod
    def take(cls, probe: Competitor, dtype: Any) -> Reading:
        """Let a probe measure the machine now."""
        answer = probe.ask("peak", dtype=dtype, repeats=3)
        return cls(probe.threads, answer["gflops"], answer["loop_s"])


class Machine:
    """The best readings of this run, for each number of threads."""

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self._best: dict[int, Reading] = {}
        for reading in readings:
            self.update(reading)

    def update(self, now: Reading) -> None:
        """Take one more reading into account."""
        known = self._best.get(now.threads, now)
        self._best[now.threads] = Reading(now.threads, max(now.gflops, known.gflops), min(now.loop_s, known.loop_s))

    def peak(self, threads: int) -> float:
        """Return the highest GFLOP/s of all readings with `threads` threads."""
        return self._best[threads].gflops

    def steady(self, readings: Iterable[Reading]) -> bool:
        """Whether all readings are near the best of the run."""
        return all(
            reading.gflops >= LEAST_RATE * self._best[reading.threads].gflops
            and reading.loop_s <= MOST_LOOP * self._best[reading.threads].loop_s
            for reading in readings
        )


@dataclass
class Turns:
    """The turns of one competitor."""

    samples: list[list[float]] = field(default_factory=list)  # of each turn, in nanoseconds per call
    readings: list[tuple[Reading, ...]] = field(default_factory=list)  # before and after each turn

    def steady_samples(self, machine: Machine) -> list[list[float]]:
        """Return the samples of each turn during which the machine was not busy."""
        both = zip(self.samples, self.readings, strict=True)
        return [samples for samples, readings in both if machine.steady(readings)]


@dataclass
class Timed:
    """The times of all competitors, and the readings of the machine. `notes`: what was left out, and warnings."""

    machine: Machine
    times: dict[Any, Summary] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def interleaved(
    competitors: Mapping[Any, Competitor], rules: Rules, progress: Progress,
    read: Callable[[Any], Reading] | None = None, failed: Callable[[Any, CompetitorError], None] | None = None,
    readings: Iterable[Reading] = (),
) -> Timed:  # fmt: skip
    """Warm up all competitors, then let them take turns, and return their times.

    `read`, if given, takes a reading of the machine before and after each turn of the competitor with that key. Turns
    during which the machine was busy are repeated, up to PATIENCE times the number of turns. If the machine was busy in
    all turns of a competitor, all of them count. `readings`: those taken earlier in the run. `failed`, if given, is
    called for a competitor that fails, which is then left out, unless `failed` raises.
    """
    left, found, machine = dict(competitors), {key: Turns() for key in competitors}, Machine(readings)

    def take_reading(key: Any) -> tuple[Reading, ...]:
        if read is None:
            return ()
        machine.update(now := read(key))
        return (now,)

    def ask(key: Any, what: str) -> dict[str, Any] | None:
        """Return the answer of a competitor once its threads have stopped spinning; None if it failed."""
        try:
            answer: dict[str, Any] = left[key].ask(what)
        except CompetitorError as error:
            if failed is None:
                raise
            failed(key, error)
            del left[key]
            return None
        time.sleep(SETTLE)
        return answer

    def has_enough(key: Any, turn: int) -> bool:
        steady = found[key].steady_samples(machine)
        return is_done(_all(steady), rules) or (turn > rules.turns and len(steady) >= rules.turns)

    count, total = len(competitors), len(competitors) * (rules.turns + 1)
    for turn in range(PATIENCE * rules.turns + 1):  # turn 0 is the warm-up
        for number, key in enumerate(list(left)):
            if turn and has_enough(key, turn):
                continue
            progress.advance(min(turn * count + number, total), total, left[key].name)
            if not turn:
                ask(key, "warm")
                continue
            before = take_reading(key)
            if (answer := ask(key, "turn")) is not None:
                found[key].samples.append(answer["samples"])
                found[key].readings.append(before + take_reading(key))
    return _timed({key: found[key] for key in left}, machine)


def _timed(found: Mapping[Any, Turns], machine: Machine) -> Timed:
    timed, made, left_out, busy = Timed(machine), 0, 0, 0
    for key, turns in found.items():
        steady = turns.steady_samples(machine)
        timed.times[key] = Summary.of(_all(steady or turns.samples))
        made += len(turns.samples)
        left_out += (len(turns.samples) - len(steady)) if steady else 0
        busy += not steady
    if left_out:
        timed.notes.append(
            f"{left_out} of {made} turns are left out, because the machine was busy, or its cores were slow to reach "
            "each other."
        )
    if busy:
        timed.notes.append(
            f"Warning: the machine was busy in all turns of {busy} of {len(found)} competitors; their timings are "
            "unreliable."
        )
    return timed


def _all(samples: Iterable[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(samples))
