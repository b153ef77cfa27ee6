"""Context warm-up: which windows each stage trains on, and that nothing else changes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import TINY, Acting, result, tiny_config

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.commands.main import main
from bevia_fast.data.corpus import Batches
from bevia_fast.data.staged import StagedBatches
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.planning.budget import make_budget, stage_steps
from bevia_fast.planning.memory import run_memory, training_memory
from bevia_fast.planning.plan import make_plan
from bevia_fast.runs.checkpoint import stored_config
from bevia_fast.stages import Stage, stages
from bevia_fast.training.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_runs")
SCHEDULE = "2:3,4:2,8"


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_stages_have_equal_tokens() -> None:
    assert stages("256:1000,1024:2000,4096", 4096, 2) == [
        Stage(1, 256, 32), Stage(1001, 1024, 8), Stage(3001, 4096, 2),
    ]  # fmt: skip
    assert stages("", 64, 12) == stages("64", 64, 12) == [Stage(1, 64, 12)]
    assert stages("3:1,8", 8, 3) == [Stage(1, 3, 8), Stage(2, 8, 3)]


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("256:1000", "it must be like 256:1000,1024:2000,4096"),
        ("0:5,64", "it must be like"),
        ("8:0,64", "it must be like"),
        ("8:5:64", "it must be like"),
        ("8,64", "it must be like"),
        ("8:-1,64", "it must be like"),
        ("\u0668:1,64", "it must be like"),
        (" 8:1,64", "it must be like"),
        ("8:5,128", "ends with a context of 128; it must end with ctx=64."),
        ("8:5,32", "ends with a context of 32; it must end with ctx=64."),
        ("128:5,64", "has 128 before 64; each context must be longer than the last."),
        ("8:5,8:5,64", "has 8 before 8; each context must be longer than the last."),
        ("64:5,64", "has 64 before 64"),
        ("7:5,64", "has a context of 7, of which no whole number makes the 768 tokens of a batch of 12 x 64."),
        ("8:1249,64", ""),
        ("8:1250,64", "comes to ctx=64 at step 1,251; steps=1250 ends before."),
        ("8:999,16:251,64", "comes to ctx=64 at step 1,251; steps=1250 ends before."),
    ],
)
def test_schedules_that_cannot_be(schedule: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not said:
        TrainConfig(ctx_schedule=schedule)
        return
    with pytest.raises(ConfigError) as error:
        TrainConfig(ctx_schedule=schedule)
    assert said in str(error.value)
    assert main(["train", "--ctx-schedule", schedule]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_each_stage_visits_each_of_its_windows_once_per_epoch() -> None:
    """From an epoch of its own on, whatever the number of batches that were accumulated before."""
    tokens = np.arange(1, 202)
    for accumulate in (1, 3):
        staged = StagedBatches(tokens, stages("2:5,4:7,8", 8, 2), accumulate, seed=5)
        for first, last, ctx, batch in ((0, 5, 2, 8), (5, 12, 4, 4), (12, 40, 8, 2)):
            found = [staged[index] for index in range(first * accumulate, last * accumulate)]
            assert {inputs.shape for inputs, _ in found} == {(batch, ctx)}
            assert all((targets == inputs + 1).all() for inputs, targets in found)
            starts = np.concatenate([inputs[:, 0] for inputs, _ in found])
            windows = (201 - ctx) // ctx
            for epoch in range(len(starts) // windows):
                visited = np.sort(starts[epoch * windows : (epoch + 1) * windows])
                assert (np.diff(visited) == ctx).all()
    assert not np.array_equal(starts[:5], 1 + Batches(tokens, 8, 2, seed=5).starts(0, 5)), "an order of its own"


def test_a_run_of_one_stage_has_the_usual_batches() -> None:
    tokens = np.arange(100)
    staged, usual = StagedBatches(tokens, stages("", 8, 2), 1, 5), Batches(tokens, 8, 2, 5)
    for index in range(9):
        assert np.array_equal(staged[index], usual[index])


def test_a_run_trains_on_the_windows_of_its_stages(tmp_path: Path) -> None:
    """And is evaluated on the whole context."""
    tokens = np.arange(300) % 16
    model = ModelConfig(ctx=8, dim=8, layers=1, heads=2, vocab_size=16)
    config = TrainConfig(model=model, batch=2, ctx_schedule=SCHEDULE, accumulate=2)
    trainer = Trainer(config, model, get_backend("numpy"), tokens)
    shapes = [[inputs.shape for inputs, _, _ in trainer.microbatches(step)] for step in range(1, 8)]
    assert shapes == [[(8, 2)] * 2] * 3 + [[(4, 4)] * 2] * 2 + [[(2, 8)] * 2] * 2
    first = Batches(tokens, 2, 8, config.seed)
    for index, (inputs, _, _) in enumerate(trainer.microbatches(1)):
        assert np.array_equal(inputs, first[index][0])
    warm = train(tiny_config(tmp_path, "warm", ctx_schedule=SCHEDULE))
    fixed = train(tiny_config(tmp_path, "fixed"))
    assert warm.history[0]["val_loss"] == fixed.history[0]["val_loss"]
    assert warm.history[1]["loss"] != fixed.history[1]["loss"]


def test_both_backends_take_the_same_stages() -> None:
    model = ModelConfig(ctx=8, dim=8, layers=2, heads=2, vocab_size=16)
    tokens, found = np.arange(300) % 16, {}
    config = TrainConfig(model=model, batch=2, steps=10, ctx_schedule=SCHEDULE, warmup=2, accumulate=2)
    for name in ("numpy", "numba"):
        trainer = Trainer(config, model, get_backend(name), tokens)
        losses = []
        for step in range(1, 11):
            loss = trainer.backward(step)
            trainer.update(step, loss)
            losses.append(loss)
        found[name] = losses
    assert found["numba"] == pytest.approx(found["numpy"], rel=1e-4)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 5, 6, 9])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, step: int, backend: Any) -> None:
    options = {"ctx_schedule": SCHEDULE, "backend": backend, "accumulate": 2, "threads": 2}
    whole = train(tiny_config(tmp_path, "whole", **options))
    run = train(tiny_config(tmp_path, **options), Acting(step, interrupt))
    assert run.step == step
    train(stored_config(run.folder))
    assert result(run.folder) == result(whole.folder)


def test_recompute_and_crosscheck_keep_the_bits(tmp_path: Path) -> None:
    runs = [
        train(tiny_config(tmp_path, name, ctx_schedule=SCHEDULE, **options))
        for name, options in (("a", {}), ("b", {"recompute": True}), ("c", {"crosscheck_every": 1}))
    ]
    assert len({run.model.parameters.flat.tobytes() for run in runs}) == 1


def test_memory_is_that_of_the_stage_that_needs_most() -> None:
    """A short window keeps more for the backward pass than one of 8 dim and longer."""
    model = ModelConfig(ctx=256, dim=16, layers=6, heads=2, vocab_size=16)
    config = TrainConfig(model=model, batch=2, ctx_schedule="64:10,256")
    planned = run_memory(config, model, "numpy", recompute=False)
    short = training_memory(replace(model, ctx=64), 8, "numpy")
    long = training_memory(model, 2, "numpy")
    assert planned.kept == short.kept > long.kept
    assert planned.scratch == long.scratch > short.scratch
    assert planned.weights == long.weights > short.weights
    assert run_memory(replace(config, ctx_schedule=""), model, "numpy", recompute=False) == long


def test_the_steps_of_each_stage() -> None:
    found = stages("8:10,16:20,64", 64, 4)
    assert [stage_steps(found, steps) for steps in (5, 10, 11, 30, 31, 100)] == [
        [5, 0, 0], [10, 0, 0], [10, 1, 0], [10, 20, 0], [10, 20, 1], [10, 20, 70],
    ]  # fmt: skip


def test_a_budget_counts_each_stage() -> None:
    class Clockwork:
        """Each step takes as many milliseconds as its windows have tokens."""

        def seconds(self, step: Any) -> float:
            return float(step.activations.shape[1] / 1e3)

        def seconds_of(self, calls: Any) -> float:
            return 0.0

    model = ModelConfig(ctx=64, dim=8, layers=1, heads=1, vocab_size=16)
    config = TrainConfig(model=model, batch=4, ctx_schedule="8:10,16:20,64", minutes=1 / 60)
    found = make_budget(config, model, Clockwork(), 100)  # type: ignore[arg-type]
    assert found.steps == 30 + (1000 - 80 - 320) // 64
    with pytest.raises(ConfigError, match=r"comes to ctx=64 at step 31; steps=15 ends before\.$"):
        replace(config, minutes=0.0, steps=15)


def test_a_plan_across_the_length_from_which_layers_keep_less(tmp_path: Path) -> None:
    """Its stages call different kernels, all of which must have been timed."""
    config = tiny_config(tmp_path, ctx_schedule="8:5,64", model=replace(TINY, ctx=64), steps=6)
    found = make_plan(config)
    assert all(way.ms > 0 for way in found.ways)
