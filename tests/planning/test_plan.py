"""The plan of a run, as an object and on the command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import tiny_config

from bevia_fast import train
from bevia_fast.commands import plan as plan_command
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.tokenfile import CodedText
from bevia_fast.errors import DataError
from bevia_fast.measuring.competitor import THREAD_VARIABLES
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.disk import Disk, run_on_disk
from bevia_fast.planning.plan import Plan, make_plan

MODEL = ModelConfig(ctx=64, dim=32, layers=2, heads=2, vocab_size=65)
pytestmark = pytest.mark.usefixtures("two_threads")


def test_plan_of_a_run(tmp_path: Path) -> None:
    plan = make_plan(tiny_config(tmp_path, accumulate=2))
    assert (plan.vocabulary, plan.characters, plan.tokens) == (16, 624, 32)
    assert plan.parameters == Parameters(plan.config.model).count
    assert [way.recompute for way in plan.ways] == [False, True]
    assert all(way.fits and way.ms > 0 and way.largest_ctx for way in plan.ways)
    assert not (tmp_path / "run").exists()
    assert plan.as_object()["ways"][0]["memory"]["total"] == plan.ways[0].memory.total


@pytest.mark.parametrize("ctx", [8, 100])
def test_a_context_that_fits_is_at_most_the_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctx: int
) -> None:
    config = tiny_config(tmp_path, model=replace(MODEL, ctx=ctx))
    needed = make_plan(config).ways[0].memory.total
    for available, fits, largest in ((needed, True, ctx), (needed - 1, False, min(ctx - 1, 64))):
        monkeypatch.setattr("bevia_fast.planning.plan.available_bytes", lambda available=available: available)
        way = make_plan(config).ways[0]
        assert (way.fits, way.largest_ctx) == (fits, largest)


def test_plan_on_the_command_line(tmp_path: Path) -> None:
    tiny_config(tmp_path)  # writes the text
    done = subprocess.run(
        [sys.executable, "-m", "bevia_fast", "plan", "--preset", "tiny", "--data", "text.txt", "--backend", "numpy",
         "--ctx", "32", "--json", "plan.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line) for line in done.stdout.splitlines() if set(line) == {"─"}) <= 80  # the tables
    for words in ("624 characters, 16 distinct", "with --recompute", "two moments", "expected time", "largest --ctx"):
        assert words in done.stdout
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["config"]["model"]["dim"] == 64
    assert written["ways"][0]["ms"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "plan.json"}


@pytest.mark.parametrize("characters", [1, 9, 10, 11, 69, 70, 71, 619, 620, 621, 630])
def test_a_text_is_too_short_where_train_refuses_it(characters: int) -> None:
    corpus = Corpus(CodedText(np.zeros(characters, np.uint8), "a", ""))
    for ctx in (1, 2, 6, 7, 8, 61, 62, 63):
        way: Any = SimpleNamespace(fits=None)
        config = TrainConfig(model=replace(MODEL, ctx=ctx))
        notes = plan_command.notes(Plan(config, "", characters, 1, 0, None, 0, (way, way), Disk(0, 0, 0)))
        with pytest.raises(DataError) if "too short" in " ".join(notes) else contextlib.nullcontext():
            corpus.check_length(ctx)


def test_changes_that_a_resumed_run_refuses_are_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(train(tiny_config(tmp_path)).folder)
    assert main(["plan", "--resume", run, "--dim", "16"]) == 2
    assert "--dim is 16; " in capsys.readouterr().err
    assert main(["plan", "--resume", run, "--steps", "2000", "--recompute"]) == 0


def test_a_plan_uses_the_same_threads_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """--threads is for the numba backend; NumPy's matrix products use as many threads as with `train`."""
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "7")
    monkeypatch.setattr(plan_command, "show_plan", lambda config, json: 0)
    assert main(["plan", "--backend", "numpy", "--threads", "1"]) == 0
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"7"}


@pytest.mark.parametrize("changes", [{}, {"keep": 3, "film": 5}, {"optimizer": "muon", "film": 0}], ids=str)
@pytest.mark.usefixtures("quick_runs")
def test_the_disk_that_a_run_takes(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Its weights and moments, to the byte; headers and the other files come on top."""
    model = ModelConfig(ctx=8, dim=32, layers=2, heads=2, dtype="float64")
    run = train(tiny_config(tmp_path, **{"model": model, "eval_every": 1, "save_every": 1, "film": 4, **changes}))
    planned = run_on_disk(run.config, run.model.config)
    sizes: dict[str, int] = {"checkpoints": 0, "models": 0, "film": 0}
    for path in run.folder.rglob("*.safetensors"):
        kind = {"step": path.parent.name, "best": "models"}.get(path.name[:4], "models")
        length = int.from_bytes(path.read_bytes()[:8], "little")
        sizes[kind] += path.stat().st_size - 8 - length
    assert (sizes["checkpoints"], sizes["film"]) == (planned.checkpoints, planned.film)
    assert 2 * run.model.parameters.flat.nbytes <= sizes["models"] <= planned.models
