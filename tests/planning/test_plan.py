"""What `plan` says, and what is refused by it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest
from small_runs import result, tiny_config

from bevia_fast import train
from bevia_fast.backends import open_backend
from bevia_fast.commands import plan as plan_command
from bevia_fast.commands.main import main
from bevia_fast.config import BackendName, ModelConfig, TrainConfig
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.tokenfile import CodedText
from bevia_fast.errors import ConfigError, DataError
from bevia_fast.kernels import get_backend
from bevia_fast.machine import available_bytes, readable
from bevia_fast.measuring.competitor import THREAD_VARIABLES, Competitor, as_request
from bevia_fast.measuring.stopwatch import Rules
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning import memory
from bevia_fast.planning.forecast import Forecast, products, small_model
from bevia_fast.planning.memory import largest_ctx, training_memory
from bevia_fast.planning.plan import Plan, make_plan
from bevia_fast.planning.rehearsal import rehearse
from bevia_fast.runs.checkpoint import stored_config

BLAS = 32 << 20  # bytes
THREADS = min(2, numba.config.NUMBA_NUM_THREADS)
MODEL = ModelConfig(ctx=64, dim=32, layers=2, heads=2, vocab_size=65)
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is not told")


def over_bare(
    folder: Path, model: ModelConfig, backend: BackendName, *, recompute: bool = False, batch: int = 1
) -> int:
    """The most memory of a process that trains this model, over what it has before, in bytes."""
    requests = {}
    for key, ctx, count in (("small", min(64, model.ctx), 1), ("large", model.ctx, batch)):
        sized = replace(model, ctx=ctx)
        path = folder / f"{key}-{ctx}.npz"
        np.savez(path, **dict(Parameters(sized)))  # type: ignore[arg-type]
        requests[key] = {"size": asdict(StepSize.of(sized, count)), "weights": str(path)}
    rules = as_request(Rules(turns=1, repeats=1, seconds=0.001, warmup_seconds=0.0))
    with Competitor(backend, THREADS) as one:
        one.ask("load")
        found = one.ask("context", **requests, recompute=recompute, rules=rules)
    return int(found["peak"] - found["bare"])


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """As many here, where memory is planned, as in the child processes, where it is measured."""
    before = numba.get_num_threads()
    open_backend("numba", THREADS)
    yield
    numba.set_num_threads(before)


@linux
def test_memory_grows_with_the_context_and_not_with_its_square(tmp_path: Path) -> None:
    """In child processes; what grows is what is planned."""
    contexts = (4096, 8192, 16384)
    model = ModelConfig(dim=64, layers=1, heads=1, vocab_size=65)
    found = [over_bare(tmp_path, replace(model, ctx=ctx), "numba") for ctx in contexts]
    planned = [training_memory(replace(model, ctx=ctx), 1, "numba").total for ctx in contexts]
    first, second = found[1] - found[0], found[2] - found[1]
    assert second == pytest.approx(2 * first, rel=0.1)  # if it grew with the square: 4
    assert found[2] - found[0] == pytest.approx(planned[2] - planned[0], rel=0.1)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("model", "batch", "backend"),
    [
        (ModelConfig(vocab_size=65, ctx=256, dim=384, layers=6, heads=6), 16, "numba"),
        (ModelConfig(vocab_size=65, ctx=2048, dim=256), 2, "numba"),
        (ModelConfig(vocab_size=65, ctx=8192, dim=256), 1, "numba"),
        (ModelConfig(vocab_size=65, ctx=2048, dim=256), 1, "numpy"),
    ],
)
def test_memory_is_as_planned(
    tmp_path: Path, model: ModelConfig, batch: int, backend: BackendName, recompute: bool
) -> None:
    planned = training_memory(model, batch, backend, recompute=recompute).total
    found = over_bare(tmp_path, model, backend, recompute=recompute, batch=batch)
    if backend == "numpy":  # whose library for matrix products has up to so much of its own
        assert 0.9 * planned < found < 1.1 * planned + BLAS
    else:
        assert found == pytest.approx(planned, rel=0.1)


def test_the_largest_context_is_the_last_that_fits() -> None:
    for backend, recompute in (("numba", False), ("numba", True), ("numpy", False)):
        def needed(ctx: int, backend: BackendName = backend, recompute: bool = recompute) -> int:
            return training_memory(replace(MODEL, ctx=ctx), 2, backend, recompute=recompute).total

        available = 100 << 20
        found = largest_ctx(MODEL, 2, backend, available, recompute=recompute)
        assert found % 64 == 0
        assert needed(found) <= available < needed(found + 64)
    assert largest_ctx(MODEL, 2, "numba", 1000, recompute=False) == 0


def test_a_longer_context_may_fit_where_a_shorter_one_does_not() -> None:
    """From ctx = 8 dim on layers keep less."""
    model = replace(MODEL, layers=6)
    shorter, longer = (training_memory(replace(model, ctx=ctx), 2, "numba").total for ctx in (192, 256))
    assert longer < shorter
    for available, ctx in ((longer, 256), (longer - 1, 128)):
        assert largest_ctx(model, 2, "numba", available, recompute=False) == ctx


def test_recompute_takes_less_memory_and_more_arithmetic() -> None:
    model = replace(MODEL, layers=8, ctx=1024)
    usual, less = (training_memory(model, 4, "numba", recompute=recompute) for recompute in (False, True))
    assert less.kept < usual.kept / 3
    assert less.total < usual.total
    assert less.weights == usual.weights
    steps = [rehearse(model, 4, recompute=recompute) for recompute in (False, True)]
    assert products(steps[0]) < products(steps[1]) < 4 / 3 * products(steps[0])
    # without anything made twice: 6 operations a weight and token, and 7 products of the causal half in attention
    assert products(rehearse(replace(MODEL, ctx=128), 1)) == StepSize.of(replace(MODEL, ctx=128), 1).flops


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_forecast_grows_with_the_step(backend: BackendName) -> None:
    model = replace(MODEL, dropout=0.1, norm="post", activation="relu")
    forecast = Forecast(model, 4, get_backend(backend))
    one = forecast.seconds(rehearse(model, 4))
    assert 0 < one < 10
    assert forecast.seconds(rehearse(replace(model, layers=20), 4)) > 3 * one
    assert forecast.seconds(rehearse(model, 40)) > 1.5 * one
    assert forecast.seconds(rehearse(model, 4, accumulate=3)) > 1.5 * one
    # a context that is longer than the small model's, whose attention is timed alone
    long = replace(model, ctx=8192)
    forecast = Forecast(long, 1, get_backend(backend))
    assert forecast.seconds(rehearse(replace(long, ctx=1 << 17), 1)) > 4 * forecast.seconds(rehearse(long, 1))


@pytest.mark.parametrize(
    ("dim", "heads", "dtype"),
    [(768, 3, "float32"), (1536, 6, "float32"), (3072, 12, "float32"), (576, 3, "float64"), (768, 12, "float32")],
)
def test_the_small_model_makes_all_calls_of_the_one_that_is_meant(dim: int, heads: int, dtype: Any) -> None:
    """However much smaller its weights are."""
    for ctx in (64, 2048, 8 * dim - 1, 8 * dim):
        config = replace(MODEL, ctx=ctx, dim=dim, heads=heads, dtype=dtype)
        small, sequences = small_model(config, 1, "numba")
        called, wanted = (
            {call.operation for call, _ in rehearse(model, batch).calls}
            for model, batch in ((small, sequences), (config, 1))
        )
        assert called >= wanted, ctx


def test_plan_of_a_run(tmp_path: Path) -> None:
    plan = make_plan(tiny_config(tmp_path, accumulate=2))
    assert (plan.vocabulary, plan.characters, plan.tokens) == (16, 624, 32)
    assert plan.parameters == Parameters(plan.config.model).count
    assert [way.recompute for way in plan.ways] == [False, True]
    assert all(way.fits and way.ms > 0 and way.largest_ctx for way in plan.ways)
    assert not (tmp_path / "run").exists()
    assert plan.as_object()["ways"][0]["memory"]["total"] == plan.ways[0].memory.total


def test_plan_on_the_command_line(tmp_path: Path) -> None:
    tiny_config(tmp_path)  # writes the text
    done = subprocess.run(
        [sys.executable, "-m", "bevia_fast", "plan", "--preset", "seed", "--data", "text.txt", "--backend", "numpy",
         "--ctx", "32", "--json", "plan.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert max(len(line) for line in done.stdout.splitlines() if line.startswith(" ")) <= 80
    for words in ("624 characters, 16 distinct", "with --recompute", "two moments", "expected ms", "largest --ctx"):
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
        notes = plan_command.notes(Plan(config, "", characters, 1, 0, None, 0, (way, way)))
        with pytest.raises(DataError) if "too short" in " ".join(notes) else contextlib.nullcontext():
            corpus.check_length(ctx)


def test_what_a_resumed_run_cannot_change_is_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(train(tiny_config(tmp_path)).folder)
    assert main(["plan", "--resume", run, "--dim", "16"]) == 2
    assert "--dim is 16; " in capsys.readouterr().err
    assert main(["plan", "--resume", run, "--steps", "2000", "--recompute"]) == 0


def test_a_plan_has_the_threads_that_training_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """--threads is for the Numba backend: the library of NumPy's products takes as many as it would for `train`."""
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "7")
    monkeypatch.setattr(plan_command, "show_plan", lambda config, json: 0)
    assert main(["plan", "--backend", "numpy", "--threads", "1"]) == 0
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"7"}


def test_what_cannot_fit_is_refused_with_the_plans_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    model = replace(config.model, vocab_size=16)
    usual, less = (training_memory(model, 2, "numpy", recompute=recompute).total for recompute in (False, True))
    monkeypatch.setattr(memory, "available_bytes", lambda: (usual + less) // 2)
    with pytest.raises(ConfigError) as refusal:
        train(config)
    message = str(refusal.value)
    for words in (f"about {readable(usual)}", f"with --recompute it is {readable(less)}", "--ignore-memory",
                  "kept for the backward pass"):  # fmt: skip
        assert words in message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()
    assert train(replace(config, recompute=True)).history
    train(replace(config, ignore_memory=True, out=str(tmp_path / "other")))
    assert result(tmp_path / "run") == result(tmp_path / "other")
    monkeypatch.setattr(memory, "available_bytes", lambda: 50_000)
    line = f"train --data {tmp_path / 'text.txt'} --ctx 16 --dim 8 --heads 1 --out {tmp_path / 'third'}"
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("bevia-fast: error: Training this model needs about ")
    assert error.count("\n") == 1
    assert "--recompute" not in error  # that would not fit either


def test_what_a_resumed_run_has_read_is_not_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tiny_config(tmp_path)).folder
    config = stored_config(run)
    needed = training_memory(config.model, config.batch, config.backend)
    free = needed.total - needed.weights - needed.moments
    for less in (1, 0):
        monkeypatch.setattr(memory, "available_bytes", lambda less=less: free - less)
        with pytest.raises(ConfigError, match="Training this model needs") if less else contextlib.nullcontext():
            train(replace(config, steps=12))
    assert result(run)[0] == 12


@pytest.mark.parametrize(
    ("version", "most", "used", "kept"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_containers_share_is_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, most: str, used: str, kept: str
) -> None:
    monkeypatch.setattr("bevia_fast.machine.CGROUP", tmp_path)
    folder = tmp_path / version
    folder.mkdir(exist_ok=True)
    (folder / most).write_text("1000000\n")
    (folder / used).write_text("990000\n")
    assert available_bytes() == 10_000
    (folder / "memory.stat").write_text(f"anon 90000\n{kept} 800000\nactive_file 100000\n")  # a text that was read
    assert available_bytes() == 810_000
    (folder / most).write_text("max\n" if not version else "9223372036854771712\n")
    assert (available_bytes() or 1 << 40) > 1 << 20  # the machine's


def test_a_request_for_more_than_any_machine_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_config(tmp_path)
    text = f"train --data {tmp_path / 'text.txt'} --out {tmp_path / 'run'}"
    for sizes in ("--dim 65536 --layers 4096 --heads 1 --ctx 16", "--ctx 16 --batch 1048576 --dim 4096 --layers 100"):
        assert main([*text.split(), *sizes.split()]) == 2
        assert "of memory (" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
