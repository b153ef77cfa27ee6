"""`bench contexts`: memory and time while the context grows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.commands.main import main
from bevia_fast.errors import ConfigError, StoppedRun
from bevia_fast.measuring import context_growth
from bevia_fast.measuring.competitor import Competitor
from bevia_fast.measuring.options import BenchContextsConfig
from bevia_fast.measuring.precheck import Agreement
from bevia_fast.measuring.stopwatch import Summary

LINE = "bench contexts --values 64 8 --dim 8 --layers 1 --seconds 0.01 --threads 1"


def test_points_are_measured_and_those_too_long_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = LINE.replace("64 8", "64 8 100000") + " --backend numpy --limit 5 --json found.json --csv found.csv"
    for _ in range(2):  # the second run appends to the files
        assert main(line.split()) == 0
    out = capsys.readouterr().out
    assert "Left out numpy from ctx 100,000 on: it needs about" in out or "on: a step could take" in out
    assert "Loss and gradients of 1 x 8 tokens agree with numpy's" in out
    found = json.loads(Path("found.json").read_text())
    assert [point["ctx"] for point in found] == [8, 64] * 2
    assert len(Path("found.csv").read_text().splitlines()) == 5
    for point in found:
        assert point["tokens_per_s"] == pytest.approx(1e3 * point["ctx"] / point["ms_median"])
        assert point["ms_p20"] <= point["ms_median"] <= point["ms_p80"]
        assert point["fraction_of_peak"] == pytest.approx(point["gflops"] / point["peak_gflops"])
        assert 0 <= point["over_bare_mb"] < point["peak_rss_mb"]
    assert len({point["peak_gflops"] for point in found[:2]}) == 1  # of the run
    assert Path("runs/contexts.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_keeps_the_points_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    measure, points = context_growth._measure, []

    def interrupted(*arguments: Any) -> Any:
        if points:
            raise KeyboardInterrupt
        points.append(measure(*arguments))
        return points[-1]

    monkeypatch.setattr(context_growth, "_measure", interrupted)
    monkeypatch.setattr(context_growth, "ATTEMPTS", 1)
    line = f"{LINE} --backend numpy --json found.json".split()
    assert main(line) == 130
    assert [point["ctx"] for point in json.loads(Path("found.json").read_text())] == [8]
    assert Path("runs/contexts.png").read_bytes().startswith(b"\x89PNG")
    assert main(line) == 130  # no point yet
    assert len(json.loads(Path("found.json").read_text())) == 1


def test_a_point_is_measured_again_if_the_machine_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first point succeeds at the third attempt; the second never does, so its fastest attempt counts."""
    config = BenchContextsConfig(dim=8, layers=1, values=(8, 16), threads=(1,), seconds=0.01, backend=("numpy",))
    ask, good, bad = Competitor.ask, 100.0, 50.0
    readings = iter([good, good, bad, bad, good, good, good, *[bad] * 6])
    times = iter([5.0, 4.0, 6.0, 3.0, 2.0, 7.0])

    def asked(self: Competitor, do: str, **request: Any) -> Any:
        if do == "peak":
            return {"gflops": next(readings), "loop_s": 1e-6}
        return ask(self, do, **request)

    measure = context_growth._measure
    monkeypatch.setattr(Competitor, "ask", asked)
    monkeypatch.setattr(
        context_growth, "_measure", lambda *a: replace(measure(*a), times=Summary.of([1e6 * next(times)]))
    )
    report = context_growth.bench_contexts(config)
    assert [point.ms_median for point in report.results] == [6.0, 2.0]
    assert report.notes[-1] == (
        "Warning: the machine was busy in every attempt at 1 of 2 points; their timings are unreliable."
    )


def test_nothing_is_measured_where_the_gradients_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --recompute too, which is checked after numba without it."""
    read = Agreement._read

    def wrong(self: Agreement, path: Path) -> Any:
        gradients, loss = read(self, path)
        return gradients, loss + 0.1 * (path.name == "gradients-2.npz")

    monkeypatch.setattr(Agreement, "_read", wrong)
    with pytest.raises(StoppedRun, match=r"numba --recompute differs from numpy, so nothing was timed: .*loss"):
        context_growth.bench_contexts(BenchContextsConfig(dim=8, layers=1, values=(8,), threads=(1,), seconds=0.01))


def test_a_window_has_its_own_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every second layer and in all; each is compared with NumPy where the window hides something."""
    monkeypatch.setattr(context_growth, "ATTEMPTS", 1)
    sizes = {"dim": 8, "layers": 2, "heads": 2, "threads": (1,), "seconds": 0.01}
    report = context_growth.bench_contexts(
        BenchContextsConfig(values=(8, 32, 64), window=16, backend=("numba",), **sizes)
    )
    half, everywhere = "numba --window 16", "numba --window 16 --window-layers all"
    names = ["numba", "numba --recompute", half, everywhere]
    assert [(point.backend, point.ctx) for point in report.results] == [(n, ctx) for n in names for ctx in (8, 32, 64)]
    flops = {(point.backend, point.ctx): point.flops_per_step for point in report.results}
    assert flops[everywhere, 64] < flops[half, 64] < flops["numba", 64]
    assert flops[everywhere, 8] == flops["numba", 8]
    assert [words.split(" agree")[0] for words in report.checked.split("; ")] == [
        f"Loss and gradients of 1 x {ctx} tokens" for ctx in (8, 32, 32)
    ]
    read = Agreement._read

    def wrong(self: Agreement, path: Path) -> Any:
        gradients, loss = read(self, path)
        return gradients, loss + 0.1 * (path.name == "gradients-0.npz" and self.size.window_layers == "all")

    monkeypatch.setattr(Agreement, "_read", wrong)
    with pytest.raises(StoppedRun, match=f"{everywhere} differs from numpy"):
        context_growth.bench_contexts(BenchContextsConfig(values=(8, 32), window=16, **sizes))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": -1}, "window is -1"),
        ({"window": 8, "backend": ("numpy",)}, "add it to --backend"),
        ({"threads": (1, 2)}, "one number of --threads"),
        ({"limit": 0.0}, "--limit"),
        ({"values": (0,)}, "--values"),
    ],
)
def test_options_that_cannot_be_measured_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchContextsConfig(**options)  # type: ignore[arg-type]
