"""The rules of timing, on a clock that the tests set."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from small_benches import FakeClock

from bevia_fast.measuring import stopwatch
from bevia_fast.measuring.stopwatch import Ratio, Rules, Stopwatch, Summary, is_done, percentile


def test_percentiles() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0, 5.0], share) for share in (0, 0.2, 0.5, 0.8, 1)] == [
        1, pytest.approx(1.8), 3, pytest.approx(4.2), 5,
    ]  # fmt: skip
    assert Summary.of([3.0, 1.0, 2.0]) == Summary(2.0, pytest.approx(1.4), pytest.approx(2.6), 3)
    with pytest.raises(ValueError, match="nothing was timed"):
        Summary.of([])


def test_the_first_call_and_the_warm_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClock(monkeypatch)
    costs = iter([9_000_000_000, 350_000_000, 250_000_000, 200_000_000, 150_000_000])

    def function() -> None:
        fake.now += next(costs, 1_000_000)

    watch = Stopwatch(function, Rules(seconds=0.05, turns=1, warmup_seconds=5))
    assert watch.first_s == 9.0
    assert watch.warm_up() == 9  # windows of 250, 1 and 1 ms: the last two agree
    assert set(watch.turn()) == {1_000_000}


def test_a_sample_of_a_short_function_is_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClock(monkeypatch)

    def function() -> None:
        fake.now += 1000

    watch = Stopwatch(function, Rules(seconds=0.001, turns=1))
    watch.warm_up()
    assert watch.calls == 100
    samples = watch.turn()
    assert set(samples) == {1000.0}
    assert len(samples) == 10


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be pinned to cores here")
def test_caches_are_emptied_on_each_core_before_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk of the memory is written once, by a thread pinned to one core."""
    cores, written, lock = sorted(os.sched_getaffinity(0)), list[tuple[int, int]](), threading.Lock()

    def memset(place: int, value: int, size: int) -> None:
        (core,) = os.sched_getaffinity(0)
        with lock:
            written.append((place // size, core))

    monkeypatch.setattr(stopwatch.ctypes, "memset", memset)
    monkeypatch.setattr(stopwatch, "EVICT_BYTES", 64 * stopwatch.EVICT_CHUNK)
    fake, calls = FakeClock(monkeypatch), list[int]()

    def function() -> None:
        calls.append(len(written))
        fake.now += 1_000_000

    watch = Stopwatch(function, Rules(turns=1, seconds=0.001, cold=True))
    watch.warm_up()
    assert not written
    assert len(watch.turn()) == 3
    assert calls[-3:] == [64, 128, 192]
    assert len({place for place, _ in written}) == 64
    assert {core for _, core in written} == set(cores)
    assert sorted(os.sched_getaffinity(0)) == cores


@pytest.mark.parametrize(("seconds", "samples", "calls"), [(0.001, 3, 8), (3.0, 3, 5), (11.0, 1, 2)])
def test_a_function_timed_alone(seconds: float, samples: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples, or one of a call longer than ten seconds, after the first call and the warm-up."""
    fake, count = FakeClock(monkeypatch), 0

    def function() -> None:
        nonlocal count
        count += 1
        fake.now += int(seconds * 1e9)

    watch = Stopwatch(function, Rules(turns=1, seconds=0.002, warmup_seconds=0.0))
    assert watch.alone() == [seconds * 1e9] * samples
    assert count == calls


def test_slow_functions_are_called_no_more_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClock(monkeypatch)

    def function() -> None:
        fake.now += 2_500_000_000

    watch = Stopwatch(function, Rules(turns=3))
    assert watch.warm_up() == 1
    assert watch.turn() == [2_500_000_000]
    assert is_done([2.5e9] * 3, Rules(turns=5))
    assert not is_done([2.5e9] * 2, Rules(turns=5))
    assert not is_done([0.5e9] * 3, Rules(turns=5, seconds=3))
    assert not is_done([1e6] * 10_000, Rules(turns=5, seconds=3))  # fast ones take all turns


def test_the_interval_of_a_ratio() -> None:
    assert Ratio.of([1.0, 3.0, 2.0]) == Ratio(2.0, 1.0, 3.0)
    many = Ratio.of([number / 100 for number in range(101)])
    assert (many.median, many.low, many.high) == (0.5, 0.4, 0.6)  # 95 %: 50 +- 1.96 * sqrt(101) / 2
    assert many.width == pytest.approx(0.1)
    # over repeated draws it misses the median about one time in twenty
    generator = np.random.default_rng(1)
    found = [Ratio.of(list(generator.lognormal(0.0, 0.3, 40))) for _ in range(1000)]
    assert 0.93 < np.mean([one.low <= 1.0 <= one.high for one in found]) < 0.98
