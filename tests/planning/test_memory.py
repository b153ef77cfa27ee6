"""Planned memory, compared with what processes really take; and what is refused because it does not fit."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, replace
from pathlib import Path

import numba
import numpy as np
import pytest
from small_runs import result, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.config import BackendName, ModelConfig
from bevia_fast.errors import ConfigError
from bevia_fast.machine import readable
from bevia_fast.measuring.competitor import Competitor, as_request
from bevia_fast.measuring.stopwatch import Rules
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning import memory
from bevia_fast.planning.forecast import products
from bevia_fast.planning.memory import largest_ctx, training_memory
from bevia_fast.planning.rehearsal import rehearse
from bevia_fast.runs.checkpoint import stored_config

BLAS = 32 << 20  # bytes that NumPy's library for matrix products may take for itself
MODEL = ModelConfig(ctx=64, dim=32, layers=2, heads=2, vocab_size=65)
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not report peak memory")
pytestmark = pytest.mark.usefixtures("two_threads")


def over_bare(
    folder: Path, model: ModelConfig, backend: BackendName, *, recompute: bool = False, batch: int = 1
) -> int:
    """Return the peak memory of a process that trains this model, less its memory before, in bytes."""
    requests = {}
    for key, ctx, count in (("small", min(64, model.ctx), 1), ("large", model.ctx, batch)):
        sized = replace(model, ctx=ctx)
        path = folder / f"{key}-{ctx}.npz"
        np.savez(path, **dict(Parameters(sized)))  # type: ignore[arg-type]
        requests[key] = {"size": asdict(StepSize.of(sized, count)), "weights": str(path)}
    rules = as_request(Rules(turns=1, repeats=1, seconds=0.001, warmup_seconds=0.0))
    with Competitor(backend, numba.get_num_threads()) as one:
        one.ask("load")
        found = one.ask("context", **requests, recompute=recompute, rules=rules)
    return int(found["peak"] - found["bare"])


@linux
def test_memory_grows_with_the_context_and_not_with_its_square(tmp_path: Path) -> None:
    """Measured in child processes; it grows as planned."""
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
    if backend == "numpy":
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


@pytest.mark.parametrize("ctx", [1, 17, 63, 64, 100])
def test_the_largest_context_may_be_short(ctx: int) -> None:
    needed, more = (training_memory(replace(MODEL, ctx=ctx + extra), 2, "numpy").total for extra in (0, 1))
    found = [largest_ctx(MODEL, 2, "numpy", available, recompute=False) for available in (needed, needed - 1)]
    assert needed < more
    assert found == [ctx if ctx <= 64 else 64, ctx - 1 if ctx <= 64 else 64]


def test_a_longer_context_may_fit_where_a_shorter_one_does_not() -> None:
    """From ctx = 8 dim on, layers keep less."""
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
    # with nothing recomputed: 6 operations per weight and token, and 7 products of the causal half in attention
    assert products(rehearse(replace(MODEL, ctx=128), 1)) == StepSize.of(replace(MODEL, ctx=128), 1).flops


def test_training_that_cannot_fit_is_refused_with_the_plans_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    model = replace(config.model, vocab_size=16)
    usual, less = (training_memory(model, 2, "numpy", recompute=recompute).total for recompute in (False, True))
    monkeypatch.setattr(memory, "available_bytes", lambda: (usual + less) // 2)
    with pytest.raises(ConfigError) as refusal:
        train(config)
    message = str(refusal.value)
    for words in (f"about {readable(usual)}", f"recompute=True brings this down to {readable(less)}",
                  "ignore_memory=True starts anyway", "kept for the backward pass"):  # fmt: skip
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
    assert "--recompute" not in error  # it would not fit either


def test_the_memory_of_a_checkpoint_just_read_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tiny_config(tmp_path)).folder
    config = stored_config(run)
    needed = training_memory(config.model, config.batch, config.backend)
    free = needed.total - needed.weights - needed.moments
    for less in (1, 0):
        monkeypatch.setattr(memory, "available_bytes", lambda less=less: free - less)
        with pytest.raises(ConfigError, match="Training this model needs") if less else contextlib.nullcontext():
            train(replace(config, steps=12))
    assert result(run)[0] == 12


def test_a_request_for_more_than_any_machine_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_config(tmp_path)
    text = f"train --data {tmp_path / 'text.txt'} --out {tmp_path / 'run'}"
    for sizes in ("--dim 65536 --layers 4096 --heads 1 --ctx 16", "--ctx 16 --batch 1048576 --dim 4096 --layers 100"):
        assert main([*text.split(), *sizes.split()]) == 2
        assert "of memory (" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
