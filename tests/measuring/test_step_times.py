"""Timing whole training steps: `bench step` and `bench scaling`."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_benches import ONE, SMALL, TINY

from bevia_fast.commands.main import main
from bevia_fast.errors import ConfigError
from bevia_fast.measuring import step_times
from bevia_fast.measuring.competitor import Competitor, CompetitorError
from bevia_fast.measuring.options import BenchScalingConfig, BenchStepConfig
from bevia_fast.measuring.step_times import bench_scaling, bench_steps, needed_bytes
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.reporter import Progress

KEYS = [
    "backend", "threads", "dtype", "ctx", "dim", "layers", "heads",
    "batch", "vocab", "ms_median", "ms_p20", "ms_p80", "tokens_per_s", "flops_per_step",
    "gflops", "peak_gflops", "fraction_of_peak", "peak_rss_mb", "first_step_s", "versions", "cpu",
]  # fmt: skip


def test_step_results_have_all_keys_and_are_consistent(step_results: Path) -> None:
    results = json.loads((step_results / "step.json").read_text())
    assert [result["backend"] for result in results] == ["numpy", "numba"]
    for result in results:
        assert set(KEYS) <= set(result)
        assert 0 < result["ms_p20"] <= result["ms_median"] <= result["ms_p80"]
        assert result["tokens_per_s"] == pytest.approx(16 / result["ms_median"] * 1e3)
        assert result["gflops"] == pytest.approx(result["flops_per_step"] / result["ms_median"] / 1e6)
        assert result["fraction_of_peak"] == pytest.approx(result["gflops"] / result["peak_gflops"])
        assert 10 < result["peak_rss_mb"] < 2000
        assert result["versions"]["numpy"] == np.__version__
    assert "numba" not in results[0]["versions"]  # each backend has its own process, and so its own memory
    assert results[0]["peak_rss_mb"] < results[1]["peak_rss_mb"]
    with (step_results / "step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["backend"] for row in rows] == ["numpy", "numba"]


def test_if_one_way_to_run_a_peer_fails_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's kernels stand for two ways to run a peer; one of them fails at its first step, or in its turn."""
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
        if do == "peak":  # a machine that is never busy
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


def test_the_peak_is_the_highest_of_all_probes_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, peaks = Competitor.ask, itertools.chain([50.0, 80.0], itertools.repeat(60.0))

    def asked(self: Competitor, do: str, **request: Any) -> Any:
        return {"gflops": next(peaks), "loop_s": 1e-6} if do == "peak" else ask(self, do, **request)

    monkeypatch.setattr(Competitor, "ask", asked)
    (result,) = bench_steps(TINY).results
    assert result.peak_gflops == 80.0
    assert result.fraction_of_peak == pytest.approx(result.gflops / 80.0)


def test_memory_counts_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    size = StepSize.of(TINY.model(), TINY.sequences())
    numpy, numba = (needed_bytes(size, [(name, 1)]) for name in ("numpy", "numba"))
    assert needed_bytes(size, [("numpy", 1), ("numba", 1), ("numba", 2), ("torch-eager", 1)]) == numpy + 3 * numba
    monkeypatch.setattr("bevia_fast.machine.available_bytes", lambda: int(1.5 * numpy))
    with pytest.raises(ConfigError, match="Training this model 2 times needs about"):
        bench_steps(replace(TINY, threads=(1, 2)))


def test_scaling_keeps_the_results_before_a_size_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(config: BenchStepConfig, progress: Progress) -> step_times.StepReport:
        asked.append(config.batch)
        if config.batch > 2:
            raise ConfigError("Too large.")
        return step_times.StepReport([replace(ONE, batch=config.batch, peak_gflops=100.0 * config.batch)], "checked")

    monkeypatch.setattr(step_times, "bench_steps", measured)
    report = bench_scaling(BenchScalingConfig(over="batch", values=(4, 2, 1, 8)))
    assert [(r.batch, r.peak_gflops, r.fraction_of_peak) for r in report.results] == [(1, 200, 0.25), (2, 200, 0.25)]
    assert report.notes == ["Left out batch from 4 on: Too large."]
    assert asked == [1, 2, 4]
    with pytest.raises(ConfigError, match=r"Too large\."):
        bench_scaling(BenchScalingConfig(over="batch", values=(4, 8)))


def test_scaling_draws_a_picture_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
