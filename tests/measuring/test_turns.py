"""Competitors that take turns, and the turns that count."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from small_benches import FakeClock

from bevia_fast.measuring import turns
from bevia_fast.measuring.competitor import CompetitorError
from bevia_fast.measuring.stopwatch import Rules, Stopwatch
from bevia_fast.measuring.turns import Reading, interleaved
from bevia_fast.reporter import Progress


class FakeCompetitor:
    """Answers like a process in which a function takes `cost` nanoseconds."""

    def __init__(self, name: str, cost: int, fake: FakeClock, order: list[str], rules: Rules) -> None:
        def function() -> None:
            fake.now += cost

        self.name, self.order = name, order
        self.watch = Stopwatch(function, rules)

    def ask(self, do: str) -> dict[str, Any]:
        self.order.append(f"{do} {self.name}")
        return {"samples": self.watch.turn()} if do == "turn" else {"calls": self.watch.warm_up()}


def faked(
    monkeypatch: pytest.MonkeyPatch, rules: Rules, **costs: int
) -> tuple[FakeClock, list[str], dict[str, Any]]:
    """Return a clock, the list of what competitors are asked, and the competitors. `costs`: nanoseconds of each."""
    monkeypatch.setattr(turns, "SETTLE", 0)
    fake, order = FakeClock(monkeypatch), list[str]()
    return fake, order, {name: FakeCompetitor(name, cost, fake, order, rules) for name, cost in costs.items()}


def test_competitors_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=3, seconds=0.006)
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000, b=2_000_000)

    def read(key: str) -> Reading:
        order.append(f"read {key}")
        return Reading(2, 100.0, 1e-6)

    timed = interleaved(competitors, rules, Progress(), read)
    assert order == ["warm a", "warm b", *["read a", "turn a", "read a", "read b", "turn b", "read b"] * 3]
    assert {name: (summary.median, summary.samples) for name, summary in timed.times.items()} == {
        "a": (1_000_000, 9), "b": (2_000_000, 9),
    }  # fmt: skip
    assert not timed.notes


@pytest.mark.parametrize("worse", [Reading(2, 89.0, 1e-6), Reading(2, 100.0, 1.8e-6)])
def test_turns_on_a_busy_machine_are_repeated(monkeypatch: pytest.MonkeyPatch, worse: Reading) -> None:
    """The first turn of a comes before the machine is known to be faster. With one thread, other readings are good."""
    rules, good, one = Rules(turns=2, seconds=0.006), Reading(2, 100.0, 1e-6), Reading(1, 50.0, 5e-7)
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000, b=2_000_000, c=1_000_000)
    readings = {"a": [worse, worse, good, good, good, worse, good, good], "b": [good] * 4, "c": [one] * 4}
    timed = interleaved(competitors, rules, Progress(), lambda key: readings[key].pop(0), readings=[one])
    assert [order.count(f"turn {name}") for name in "abc"] == [4, 2, 2]
    assert {name: summary.samples for name, summary in timed.times.items()} == {"a": 6, "b": 6, "c": 6}
    (note,) = timed.notes
    assert note == (
        "2 of 8 turns are left out, because the machine was busy, or its cores were slow to reach each other."
    )


def test_if_the_machine_is_always_busy_all_turns_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, readings = Rules(turns=2, seconds=0.006), itertools.cycle([Reading(2, 100.0, 1e-6), Reading(2, 50.0, 1e-6)])
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000)
    timed = interleaved(competitors, rules, Progress(), lambda key: next(readings))
    assert order.count("turn a") == 4
    assert timed.times["a"].samples == 12
    assert timed.notes == [
        "Warning: the machine was busy in all turns of 1 of 1 competitors; their timings are unreliable."
    ]


def test_a_failing_probe_is_not_blamed_on_a_competitor(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=2, seconds=0.006)
    _, _, competitors = faked(monkeypatch, rules, a=1_000_000)

    def read(key: str) -> Reading:
        raise CompetitorError("peak ended.")

    with pytest.raises(CompetitorError, match="peak ended"):
        interleaved(competitors, rules, Progress(), read, lambda key, error: None)


def test_a_slow_competitor_takes_no_more_turns_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=5)
    _, order, competitors = faked(monkeypatch, rules, slow=2_500_000_000, fast=300_000_000)
    interleaved(competitors, rules, Progress())
    assert order.count("turn slow") == 3
    assert order.count("turn fast") == 5
