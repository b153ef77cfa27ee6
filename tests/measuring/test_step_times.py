"""`bench`: timing rules, results, and the commands as a user calls them."""

from __future__ import annotations

import csv
import errno
import importlib.util
import itertools
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevia_fast.commands.arguments import options, parse
from bevia_fast.commands.main import main
from bevia_fast.errors import ConfigError, StoppedRun, UserError
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.measuring import step_times, stopwatch, turns
from bevia_fast.measuring.competitor import Competitor, CompetitorError
from bevia_fast.measuring.kernel_jobs import chosen, families, job, letters_of
from bevia_fast.measuring.options import BENCHES, PROFILES, BenchScalingConfig, BenchStepConfig, ProfileKernelConfig
from bevia_fast.measuring.precheck import CHECK_CTX, Agreement, checked_shape
from bevia_fast.measuring.results import StepResult, append_csv, append_json, write_json
from bevia_fast.measuring.step_times import bench_scaling, bench_steps, needed_bytes
from bevia_fast.measuring.stopwatch import Ratio, Rules, Stopwatch, Summary, is_done, percentile
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.measuring.turns import Look, interleaved
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.memory import training_memory
from bevia_fast.reporter import Progress

SMALL = [
    "--ctx", "8", "--dim", "16", "--layers", "1", "--heads", "2", "--batch", "2", "--seconds", "0.05", "--turns", "2",
]  # fmt: skip
KEYS = [
    "backend", "threads", "dtype", "ctx", "dim", "layers", "heads",
    "batch", "vocab", "ms_median", "ms_p20", "ms_p80", "tokens_per_s", "flops_per_step",
    "gflops", "peak_gflops", "fraction_of_peak", "peak_rss_mb", "first_step_s", "versions", "cpu",
]  # fmt: skip

# -------------------------------------------------------------------------------------------------------------- timing


class FakeClock:
    """Time passes only when a function says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(stopwatch, "clock", lambda: self.now)


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


def test_short_functions_are_called_several_times_for_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeClock(monkeypatch)

    def function() -> None:
        fake.now += 1000

    watch = Stopwatch(function, Rules(seconds=0.001, turns=1))
    watch.warm_up()
    assert watch.calls == 100
    samples = watch.turn()
    assert set(samples) == {1000.0}
    assert len(samples) == 10


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
    """A clock, what is asked of competitors, and these, with the nanoseconds that each takes."""
    monkeypatch.setattr(turns, "SETTLE", 0)
    fake, order = FakeClock(monkeypatch), list[str]()
    return fake, order, {name: FakeCompetitor(name, cost, fake, order, rules) for name, cost in costs.items()}


def test_turns_are_taken_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=3, seconds=0.006)
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000, b=2_000_000)

    def look(key: str) -> Look:
        order.append(f"look {key}")
        return Look(2, 100.0, 1e-6)

    timed = interleaved(competitors, rules, Progress(), look)
    assert order == ["warm a", "warm b", *["look a", "turn a", "look a", "look b", "turn b", "look b"] * 3]
    assert {name: (summary.median, summary.samples) for name, summary in timed.times.items()} == {
        "a": (1_000_000, 9), "b": (2_000_000, 9),
    }  # fmt: skip
    assert not timed.notes


@pytest.mark.parametrize("worse", [Look(2, 89.0, 1e-6), Look(2, 100.0, 1.8e-6)])
def test_turns_count_in_which_the_machine_gave_what_it_can(monkeypatch: pytest.MonkeyPatch, worse: Look) -> None:
    """The first turn of a is made before the machine is known to do better. With one thread other looks are good."""
    rules, good, one = Rules(turns=2, seconds=0.006), Look(2, 100.0, 1e-6), Look(1, 50.0, 5e-7)
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000, b=2_000_000, c=1_000_000)
    looks = {"a": [worse, worse, good, good, good, worse, good, good], "b": [good] * 4, "c": [one] * 4}
    timed = interleaved(competitors, rules, Progress(), lambda key: looks[key].pop(0), looks=[one])
    assert [order.count(f"turn {name}") for name in "abc"] == [4, 2, 2]
    assert {name: summary.samples for name, summary in timed.times.items()} == {"a": 6, "b": 6, "c": 6}
    (note,) = timed.notes
    assert note.startswith("2 of 8 turns do not count")


def test_if_no_turn_counts_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, looks = Rules(turns=2, seconds=0.006), itertools.cycle([Look(2, 100.0, 1e-6), Look(2, 50.0, 1e-6)])
    _, order, competitors = faked(monkeypatch, rules, a=1_000_000)
    timed = interleaved(competitors, rules, Progress(), lambda key: next(looks))
    assert order.count("turn a") == 4
    assert timed.times["a"].samples == 12
    assert timed.notes == ["The machine was restless in all turns of 1 of 1 competitors: they count nevertheless."]


def test_a_probe_that_fails_is_no_fault_of_a_competitor(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=2, seconds=0.006)
    _, _, competitors = faked(monkeypatch, rules, a=1_000_000)

    def look(key: str) -> Look:
        raise CompetitorError("peak ended.")

    with pytest.raises(CompetitorError, match="peak ended"):
        interleaved(competitors, rules, Progress(), look, lambda key, error: None)


def test_a_slow_competitor_takes_no_more_turns_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(turns=5)
    _, order, competitors = faked(monkeypatch, rules, slow=2_500_000_000, fast=300_000_000)
    interleaved(competitors, rules, Progress())
    assert order.count("turn slow") == 3
    assert order.count("turn fast") == 5


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be told where to run")
def test_caches_are_emptied_on_each_core_before_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk of the memory is written once, by a thread that may run on one core only."""
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
def test_what_is_timed_alone(seconds: float, samples: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three samples, one of what takes longer than ten seconds; the first call, and the warm-up, come before them."""
    fake, count = FakeClock(monkeypatch), 0

    def function() -> None:
        nonlocal count
        count += 1
        fake.now += int(seconds * 1e9)

    watch = Stopwatch(function, Rules(turns=1, seconds=0.002, warmup_seconds=0.0))
    assert watch.alone() == [seconds * 1e9] * samples
    assert count == calls


def test_slow_functions_are_called_no_more_than_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
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
    # of samples that are drawn again and again, it misses the median about one time in twenty
    generator = np.random.default_rng(1)
    found = [Ratio.of(list(generator.lognormal(0.0, 0.3, 40))) for _ in range(1000)]
    assert 0.93 < np.mean([one.low <= 1.0 <= one.high for one in found]) < 0.98


# ---------------------------------------------------------------------------------------------------------------- step


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with step.json and step.csv."""
    folder = tmp_path_factory.mktemp("bench")
    line = ["bench", "step", *SMALL, "--threads", "1", "--json", str(folder / "step.json"), "--csv",
            str(folder / "step.csv")]  # fmt: skip
    assert main(line) == 0
    return folder


def test_step_results_have_all_keys_and_fit_together(measured: Path) -> None:
    results = json.loads((measured / "step.json").read_text())
    assert [result["backend"] for result in results] == ["numpy", "numba"]
    for result in results:
        assert set(KEYS) <= set(result)
        assert 0 < result["ms_p20"] <= result["ms_median"] <= result["ms_p80"]
        assert result["tokens_per_s"] == pytest.approx(16 / result["ms_median"] * 1e3)
        assert result["gflops"] == pytest.approx(result["flops_per_step"] / result["ms_median"] / 1e6)
        assert result["fraction_of_peak"] == pytest.approx(result["gflops"] / result["peak_gflops"])
        assert 10 < result["peak_rss_mb"] < 2000
        assert result["versions"]["numpy"] == np.__version__
    assert "numba" not in results[0]["versions"]  # its own process, without the other's memory
    assert results[0]["peak_rss_mb"] < results[1]["peak_rss_mb"]
    with (measured / "step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["backend"] for row in rows] == ["numpy", "numba"]


def test_compare(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((measured / "step.json").read_text())
    other = [result | {"ms_median": result["ms_median"] / 2, "cpu": "another"} for result in results]
    other[0]["threads"] = 77
    (measured / "other.json").write_text(json.dumps(other))
    assert main(["bench", "compare", str(measured / "step.json"), str(measured / "other.json")]) == 0
    out = capsys.readouterr().out
    assert "A training step: ctx 8, dim 16, layers 1" in out
    assert "  numba, 1 thread, float32  " in out
    assert "2.00" in out
    assert "another" in out
    assert "2 measurements stand in one of the files only." in out


def test_csv_appends_and_refuses_other_columns(measured: Path, tmp_path: Path) -> None:
    result = StepResult(**json.loads((measured / "step.json").read_text())[0])
    path = tmp_path / "all.csv"
    for _ in range(2):
        append_csv(str(path), [result])
    assert len(path.read_text().splitlines()) == 3
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        append_csv(str(path), [result])


def test_json_appends_and_refuses_what_is_no_list_of_results(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((measured / "step.json").read_text())
    path = tmp_path / "all.json"
    for _ in range(2):
        append_json(str(path), [StepResult(**result) for result in results])
    assert json.loads(path.read_text()) == [*results, *results]
    path.write_text('{"a": 1}')
    assert main(["bench", "step", *SMALL, "--json", str(path)]) == 2  # before anything is measured
    assert "is not a file of results" in capsys.readouterr().err
    path.write_text("a,b\n1,2\n")
    assert main(["bench", "kernels", "--csv", str(path)]) == 2
    assert "other columns" in capsys.readouterr().err


def test_results_that_cannot_be_added_leave_those_that_are_there(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "all.json", tmp_path / "link.json"
    path.write_bytes((measured / "step.json").read_bytes())
    link.symlink_to(path)
    results = [StepResult(**result) for result in json.loads(path.read_text())]

    def full(handle: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UserError, match="No space left"):
            append_json(str(path), results)
    assert path.read_bytes() == (measured / "step.json").read_bytes()
    append_json(str(link), results)  # a link stays one
    assert link.is_symlink()
    assert len(json.loads(path.read_text())) == 4
    assert {file.name for file in tmp_path.iterdir()} == {"all.json", "link.json"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_json(str(path), {"a": 1})
    assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert path.is_fifo()


def test_one_way_to_run_a_peer_that_fails_does_not_spoil_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With numpy's kernels as two ways to run a peer: one fails to start, or in its turn."""
    config = BenchStepConfig(ctx=8, dim=16, layers=1, heads=2, batch=2, seconds=0.05, turns=1, threads=(1,),
                             backend=("numba",), peer=("torch-eager", "torch-compile"))  # fmt: skip
    ask, start = Competitor.ask, Competitor.__init__
    failing = ""

    def started(self: Competitor, name: str, threads: int, python: str = "") -> None:
        start(self, "numpy" if name.startswith("torch") else name, threads, python)
        self.name = name

    def asked(self: Competitor, do: str, **request: Any) -> Any:
        if self.name == "torch-compile" and do == failing:
            raise CompetitorError("torch-compile: no compiler.")
        if do == "peak":  # on a machine that gives the same at all times
            return {"gflops": 100.0, "loop_s": 1e-6}
        return ask(self, do, **request)

    monkeypatch.setattr(Competitor, "__init__", started)
    monkeypatch.setattr(Competitor, "ask", asked)
    for failing in ("step", "turn"):  # noqa: B007
        report = bench_steps(config)
        assert [result.backend for result in report.results] == ["numba", "torch-eager"]
        assert report.notes == ["Left out: torch-compile: no compiler."]
    with pytest.raises(CompetitorError, match="no compiler"):
        bench_steps(replace(config, peer=("torch-compile",)))


@pytest.mark.parametrize("value", [1.0, np.nan])
@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_timed_where_the_gradients_differ(
    value: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is the wrong one: numpy's are read first, and are what the others are held against."""
    read = Agreement._read

    def wrong(self: Agreement, path: Path) -> Any:
        gradients, loss = read(self, path)
        if path.name == f"gradients-{number}.npz":
            gradients["h.0.mlp.c_fc.weight"][3, 5] += value
        return gradients, loss

    monkeypatch.setattr(Agreement, "_read", wrong)
    config = BenchStepConfig(ctx=8, dim=16, layers=1, heads=2, batch=2, seconds=0.05, turns=1, threads=(1,))
    with pytest.raises(StoppedRun, match=r"numba differs from numpy, so nothing was timed: .*c_fc.weight\[3, 5\]"):
        bench_steps(config)


TINY = BenchStepConfig(
    ctx=8, dim=16, layers=1, heads=2, batch=2, seconds=0.01, turns=2, threads=(1,), backend=("numpy",)
)


def test_the_peak_is_the_most_that_any_probe_of_the_run_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, peaks = Competitor.ask, itertools.chain([50.0, 80.0], itertools.repeat(60.0))

    def asked(self: Competitor, do: str, **request: Any) -> Any:
        return {"gflops": next(peaks), "loop_s": 1e-6} if do == "peak" else ask(self, do, **request)

    monkeypatch.setattr(Competitor, "ask", asked)
    (result,) = bench_steps(TINY).results
    assert result.peak_gflops == 80.0
    assert result.fraction_of_peak == pytest.approx(result.gflops / 80.0)


def test_memory_of_a_kernel_counts_whole_tables_in_each_process() -> None:
    table = 4 * (1 << 20) * 64  # of which few rows are looked up
    lookup = job("embedding_forward", letters_of(ctx=8, batch=1, heads=1, dim=64, vocab=1 << 20))
    assert lookup.cost("float32").bytes < table / 100
    assert 6 * table < lookup.memory(["numpy", "numba"], "float32") < 6.1 * table
    assert lookup.memory(["numpy", "numba"], "float64") == pytest.approx(2 * lookup.memory(["numpy"] * 2, "float32"))
    # numpy's arrays of T x T are there to compare with, even if only numba is timed
    attention = job("attention_forward", letters_of(ctx=4096, batch=1, heads=4, dim=64, vocab=1))
    squares = 4 * 4 * 4096**2
    assert 6 * squares < attention.memory(["numba"], "float32") < 7 * squares
    assert 12 * squares < attention.memory(["numba", "numpy"], "float32") < 13 * squares


def test_memory_counts_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    size = StepSize.of(TINY.model(), TINY.sequences())
    numpy, numba = (needed_bytes(size, [(name, 1)]) for name in ("numpy", "numba"))
    assert needed_bytes(size, [("numpy", 1), ("numba", 1), ("numba", 2), ("torch-eager", 1)]) == numpy + 3 * numba
    monkeypatch.setattr("bevia_fast.machine.available_bytes", lambda: int(1.5 * numpy))
    with pytest.raises(ConfigError, match="Training this model 2 times needs about"):
        bench_steps(replace(TINY, threads=(1, 2)))


def test_competitors_are_held_against_each_other_on_whole_contexts() -> None:
    size = StepSize(64, 32, 1, 2, 100, 65)
    assert checked_shape(size, None) == (64, 64)
    assert checked_shape(replace(size, batch=3), None) == (3, 64)
    long = replace(size, ctx=8192, batch=2)
    assert checked_shape(long, 16e9) == (1, 8192)
    for free in (None, 1e9):  # numpy's arrays of T x T
        assert checked_shape(long, free) == (2, CHECK_CTX)
    assert checked_shape(replace(long, ctx=1 << 17), 1e15) == (2, CHECK_CTX)  # hours


def test_what_was_not_checked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_steps(TINY).checked.startswith("Loss and gradients of 2 x 8 tokens agree with numpy's: ")
    monkeypatch.setattr("bevia_fast.measuring.precheck.CHECK_CTX", 4)
    monkeypatch.setattr("bevia_fast.measuring.precheck.CHECK_SCORES", 1)
    words = "Loss and gradients of 2 x 4 tokens, the first of 8 positions, as NumPy cannot do all, agree with"
    assert bench_steps(TINY).checked.startswith(words)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is not told")
def test_peak_memory_is_that_of_stepping(tmp_path: Path) -> None:
    """Weights that were read, and gradients that were written, are no part of it."""
    size = StepSize(8, 512, 4, 4, 1, 65)
    agreement = Agreement(size, [("numpy", 1)], tmp_path, None, step_times.StepReport(), Progress())
    weights = Parameters(size.model).flat.nbytes / 1e6
    with Competitor("numpy", 1) as one:
        one.ask("load")
        before = one.ask("facts")["peak_rss_mb"]
        agreement.begin(("numpy", 1), one, Rules(warmup_seconds=0.0))
        one.ask("warm")
        taken = one.ask("facts")["peak_rss_mb"] - before
    planned = training_memory(size.model, 1, "numpy").total / 1e6
    assert 0.9 * planned < taken < planned + 0.5 * weights


def test_a_process_that_is_killed_is_said_to_be() -> None:
    with Competitor("numpy", 1) as one:
        one.ask("load")
        one.process.kill()
        with pytest.raises(CompetitorError, match=r"numpy was ended by signal 9 \(Killed\), as by the system"):
            one.ask("facts")


ONE = StepResult("numba", 1, "float32", 64, 64, 1, 1, 8, 65, 2.0, 1.9, 2.1, 1e5, 1e9, 50.0, 100.0, 0.5, 99.0, 1.0)


def test_scaling_keeps_what_was_timed_before_a_size_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(config: BenchStepConfig, progress: Progress) -> step_times.StepReport:
        asked.append(config.batch)
        if config.batch > 2:
            raise ConfigError("Too large.")
        return step_times.StepReport([replace(ONE, batch=config.batch, peak_gflops=100.0 * config.batch)], "checked")

    monkeypatch.setattr(step_times, "bench_steps", measured)
    report = bench_scaling(BenchScalingConfig(over="batch", values=(4, 2, 1, 8)))
    assert [(r.batch, r.peak_gflops, r.fraction_of_peak) for r in report.results] == [(1, 200, 0.25), (2, 200, 0.25)]
    assert report.notes == ["Left out: batch from 4 on: Too large."]
    assert asked == [1, 2, 4]
    with pytest.raises(ConfigError, match=r"Too large\."):
        bench_scaling(BenchScalingConfig(over="batch", values=(4, 8)))


def test_a_point_of_a_curve_has_all_options() -> None:
    config = BenchScalingConfig(over="threads", ctx=8, turns=3, dtype="float64", peer=("torch-eager",))
    assert config.at(3) == BenchStepConfig(ctx=8, turns=3, dtype="float64", peer=("torch-eager",), threads=(3,))
    assert BenchScalingConfig(over="dim", threads=(2,)).at(64) == BenchStepConfig(dim=64, threads=(2,))


def test_scaling_draws_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "s.png"
    line = ["bench", "scaling", *SMALL, "--over", "batch", "--values", "1", "2", "--threads", "1", "--backend", "numpy"]
    assert main([*line, "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "A training step over batch" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_a_peer_that_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", *SMALL, "--threads", "1", "--peer", "torch"]) == 2
    err = capsys.readouterr().err
    assert "torch-eager: PyTorch is not installed in this interpreter" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_peer_in_float64_is_not_rounded(tmp_path: Path) -> None:
    size, keys = StepSize(8, 16, 1, 2, 2, 5, "float64"), [("numpy", 1), ("torch-eager", 1)]
    agreement = Agreement(size, keys, tmp_path, None, step_times.StepReport(), Progress())
    for key in keys:
        with Competitor(*key) as one:
            agreement.begin(key, one)
    agreement.check()
    assert float(agreement.report.checked.split("difference ")[1].split(",")[0]) < 1e-14


def test_a_competitor_may_be_in_an_interpreter_without_this_package() -> None:
    """As a peer's is: the package is loaded from its place, and nothing heavy with it."""
    with Competitor("torch-eager", 1, sys.executable) as peer:
        assert set(peer.ask("facts")["versions"]) == {"python"}
        if importlib.util.find_spec("torch") is None:
            with pytest.raises(CompetitorError, match="PyTorch is not installed"):
                peer.ask("load")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bench stop", "no command bevia-fast bench stop (did you mean step?)"),
        ("bench step --ctxx 5", "no option '--ctxx' (did you mean --ctx?)"),
        ("bench step --dim 10 --heads 3", "not divisible"),
        ("bench step --backend jax", "jax"),
        ("bench step --threads 4000", "--threads 4000"),
        ("bench step --threads 0", "--threads is 0"),
        ("bench step --seconds 0", "--seconds is 0.0"),
        ("bench step --peer jax", "jax"),
        ("bench step --peer torch --torch-python /nowhere", "Cannot start /nowhere"),
        ("bench step --json /nowhere/x.json", "there is no folder"),
        ("bench step --ctx 16000000 --batch 1000", "is more than any memory holds"),
        ("bench kernels --only atention", "no kernel 'atention' (did you mean attention?)"),
        ("bench scaling --over vocab", "vocab"),
        ("bench scaling --over dim --values 30 --heads 4", "not divisible"),
        ("bench scaling --threads 1 2", "one number of --threads"),
        ("bench scaling --over threads --threads 2", "--values, not from --threads"),
        ("bench contexts --preset seed", "no option '--preset'"),
        ("bench contexts --ctx 64", "no option '--ctx'"),
        ("bench contexts --turns 2", "no option '--turns'"),
        ("bench contexts --batch 0", "--batch is 0"),
        ("bench compare a.json", "Name two files of results"),
        ("bench kernels --only", "--only is given, and nothing follows it"),
        ("bench step --peer --threads 1", "--peer is given, and nothing follows it"),
        ("bench compare /nowhere/a.json b.json", "Cannot read /nowhere/a.json"),
        ("profile", "KERNEL"),
        ("profile atention", "no kernel 'atention' (did you mean attention?)"),
        ("profile attention --heads 3 --dim 64", "--dim 64 is not divisible by --heads 3"),
        ("profile attention --heads 4 --head-size 16 --dim 60", "--dim 60 is not --heads 4 times --head-size 16"),
        ("profile attention --ctx 0", "--ctx is 0"),
        ("profile attention --ctx 1000000", "needs about"),
        ("profile attention --threads 4000", "--threads 4000"),
        ("profile step --trace /nowhere/t.json", "there is no folder"),
        ("profile step --backend jax", "jax"),
        ("profile attention --asm --backend numpy", "--asm shows what Numba compiles"),
        ("profile attention step", "step is no kernel"),
        ("profile list --all", "no option '--all'"),
    ],
)
def test_bad_requests_are_one_sentence(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if line == "profile":
        assert main(["profile"]) == 0  # the help
        assert words in capsys.readouterr().out
        return
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bevia-fast: error: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"backend": "numba"}]', "\x00"])
def test_files_that_are_no_results(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main(["bench", "compare", str(path), str(path)]) == 2
    assert "bad.json is not a file of results" in capsys.readouterr().err


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    for command, kinds in (("bench", BENCHES), ("profile", PROFILES)):
        for name, config in kinds.items():
            assert main([command, name, "--help"]) == 0
            page = capsys.readouterr().out
            for option in options(config) - {"--a", "--b"}:
                assert option in page
    assert main(["profile", "--help"]) == 0
    page = capsys.readouterr().out
    for option in options(ProfileKernelConfig) - {"--kernels"}:
        assert option in page


def test_kernels_are_known_by_name() -> None:
    assert chosen(["attention"]) == ["attention_forward", "attention_backward"]
    assert chosen(["adamw", "gelu_backward", "adamw"]) == ["adamw", "gelu_backward"]
    assert chosen(["all"]) == list(OPERATIONS)
    assert [name for names in families().values() for name in names] == list(OPERATIONS)


# ---------------------------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def report() -> Any:
    path = Path(__file__).parents[2] / "bench" / "report.py"
    spec = importlib.util.spec_from_file_location("report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_stands_at_its_marker(report: Any, measured: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- speed table -->\n\n## Next\n")
    results = report.read(measured / "step.json")
    for _ in range(2):  # the second replaces the first
        report.write(readme, report.table(results))
    page = readme.read_text()
    assert page.count("| bevia-fast, numba |") == 1
    assert page.index("# Title") < page.index("| bevia-fast, numpy |") < page.index("## Next")
    assert results[0].cpu in page


def test_the_report_says_threads_and_the_peak_of_each_run(report: Any) -> None:
    two = replace(ONE, threads=2, ms_median=1.0, peak_gflops=190.0)
    slower = replace(two, backend="numpy", ms_median=3.0)
    large = replace(two, ctx=128, vocab=9, peak_gflops=210.0, fraction_of_peak=0.25)
    text = report.table([slower, two, ONE, large])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [
        ["ctx 64, dim 64, layers 1, heads 1, batch 8", "bevia-fast, numba", "1", "2", "100,000", "50%", "1.0"],
        ["", "bevia-fast, numba", "2", "1", "100,000", "50%", "1.0"],
        ["", "bevia-fast, numpy", "2", "3", "100,000", "50%", "3.0"],
        ["ctx 128, dim 64, layers 1, heads 1, batch 8, vocab 9", "bevia-fast, numba", "2", "1", "100,000", "25%",
         "1.0"],
    ]
    peaks = "100 GFLOP/s with 1 thread, 190 GFLOP/s with 2 threads, 210 GFLOP/s with 2 threads."
    assert peaks in text


def test_the_report_measures_what_it_names(report: Any) -> None:
    sizes = {}
    for name, line in report.SIZES.items():
        config = parse(["bench", "step", *line.split()])
        size = StepSize.of(config.model(), config.sequences())
        sizes[name] = (size.ctx, size.dim, size.layers, size.heads, size.batch, size.vocab)
    assert sizes == {
        "seed": (64, 64, 1, 1, 8, 65), "laptop": (64, 128, 4, 4, 12, 65), "baby": (256, 384, 6, 6, 16, 65),
        "long2k": (2048, 256, 4, 4, 2, 65), "long8k": (8192, 256, 4, 4, 1, 65), "gpt2": (64, 768, 12, 12, 4, 50257),
    }  # fmt: skip


def test_the_report_takes_no_kernels(report: Any, tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    kernel = {"kernel": "relu", "size": "N=1", "backend": "numba", "threads": 1, "dtype": "float32", "ms_median": 1.0,
              "fraction_of_peak": 0.1, "cpu": ""}  # fmt: skip
    path.write_text(json.dumps([kernel]))
    with pytest.raises(UserError, match="holds other results than those of training steps"):
        report.read(path)
