"""Competitors take turns; and a turn counts if the machine gave then what it gave at other times of the run.

A virtual machine has its cores where the host puts them: two of them may for a while be the two hardware threads of
one, each at half its rate, or lie on two chips, where what one has written reaches the other six times as late. Nothing
tells. A competitor on whom that falls alone is wronged; and where it falls on all, medians are of neither sort. So
before and after each turn a probe looks.
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

SETTLE = 0.15  # seconds after a turn, in which its threads stop spinning: OpenBLAS' do for a tenth of a second
LEAST_RATE, MOST_LOOP = 0.9, 1.7  # as multiples of the best of the run: they repeat to 2 and to 20 %
PATIENCE = 2  # times the turns asked for, at most, until as many count as are asked for


@dataclass(frozen=True)
class Look:
    """What a probe found with so many threads: multiply-adds in registers, in GFLOP/s of all of them, and the seconds
    that a parallel loop over nothing takes."""

    threads: int
    gflops: float
    loop_s: float

    @classmethod
    def by(cls, probe: Competitor, dtype: Any) -> Look:
        """What a probe finds now."""
        answer = probe.ask("peak", dtype=dtype, repeats=3)
        return cls(probe.threads, answer["gflops"], answer["loop_s"])


class Machine:
    """What it gave at its best in this run, with each number of threads."""

    def __init__(self, looks: Iterable[Look] = ()) -> None:
        self._best: dict[int, Look] = {}
        for look in looks:
            self.learn(look)

    def learn(self, now: Look) -> None:
        """Take notice of one more look."""
        known = self._best.get(now.threads, now)
        self._best[now.threads] = Look(now.threads, max(now.gflops, known.gflops), min(now.loop_s, known.loop_s))

    def peak(self, threads: int) -> float:
        """The most GFLOP/s that any look found with so many threads."""
        return self._best[threads].gflops

    def steady(self, looks: Iterable[Look]) -> bool:
        """Whether all looks found it near its best."""
        return all(
            look.gflops >= LEAST_RATE * self._best[look.threads].gflops
            and look.loop_s <= MOST_LOOP * self._best[look.threads].loop_s
            for look in looks
        )


@dataclass
class Turns:
    """What was timed of one competitor."""

    samples: list[list[float]] = field(default_factory=list)  # nanoseconds a call, of each turn
    looks: list[tuple[Look, ...]] = field(default_factory=list)  # before and after each

    def counting(self, machine: Machine) -> list[list[float]]:
        """The samples of the turns in which the machine gave what it can."""
        both = zip(self.samples, self.looks, strict=True)
        return [samples for samples, looks in both if machine.steady(looks)]


@dataclass
class Timed:
    """What was found of all of them, and of the machine. `notes`: which turns do not count."""

    machine: Machine
    times: dict[Any, Summary] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def interleaved(
    competitors: Mapping[Any, Competitor], rules: Rules, progress: Progress,
    look: Callable[[Any], Look] | None = None, failed: Callable[[Any, CompetitorError], None] | None = None,
    looks: Iterable[Look] = (),
) -> Timed:  # fmt: skip
    """Warm all of them up, then let them take turns. `look` is asked before and after each turn of a competitor; turns
    that do not count are made again, as far as patience goes, and if none counts, all do. `looks` are those that the
    run has had before. A competitor that fails is left out if there is a `failed`, which is told and may raise."""
    left, found, machine = dict(competitors), {key: Turns() for key in competitors}, Machine(looks)

    def looked(key: Any) -> tuple[Look, ...]:
        if look is None:
            return ()
        machine.learn(now := look(key))
        return (now,)

    def asked(key: Any, what: str) -> dict[str, Any] | None:
        """The answer of a competitor, once its threads have come to rest; None if it is left out."""
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

    def ready(key: Any, turn: int) -> bool:
        counting = found[key].counting(machine)
        return is_done(_all(counting), rules) or (turn > rules.turns and len(counting) >= rules.turns)

    count, total = len(competitors), len(competitors) * (rules.turns + 1)
    for turn in range(PATIENCE * rules.turns + 1):  # the first to warm up
        for number, key in enumerate(list(left)):
            if turn and ready(key, turn):
                continue
            progress.advance(min(turn * count + number, total), total, left[key].name)
            if not turn:
                asked(key, "warm")
                continue
            before = looked(key)
            if (answer := asked(key, "turn")) is not None:
                found[key].samples.append(answer["samples"])
                found[key].looks.append(before + looked(key))
    return _timed({key: found[key] for key in left}, machine)


def _timed(found: Mapping[Any, Turns], machine: Machine) -> Timed:
    timed, made, left_out, restless = Timed(machine), 0, 0, 0
    for key, turns in found.items():
        counting = turns.counting(machine)
        timed.times[key] = Summary.of(_all(counting or turns.samples))
        made += len(turns.samples)
        left_out += (len(turns.samples) - len(counting)) if counting else 0
        restless += not counting
    if left_out:
        timed.notes.append(
            f"{left_out} of {made} turns do not count: the machine gave less then than at other times, or its cores "
            "were further apart."
        )
    if restless:
        timed.notes.append(
            f"The machine was restless in all turns of {restless} of {len(found)} competitors: they count nevertheless."
        )
    return timed


def _all(samples: Iterable[list[float]]) -> list[float]:
    return list(itertools.chain.from_iterable(samples))
