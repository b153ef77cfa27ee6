"""`--init`: a new run that starts with the weights and the characters of another one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import TEXT, TINY, Acting, result, tiny_config

from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.errors import CheckpointError, ConfigError, DataError
from bevia_fast.planning.plan import make_plan
from bevia_fast.reporter import Reporter
from bevia_fast.runs.checkpoint import checkpoints, resume
from bevia_fast.runs.modelfile import load_model
from bevia_fast.runs.trained import Run
from bevia_fast.training.loop import train

OTHER = "a cat, a dog, the mat and the log.\n" * 20  # characters of TEXT, though not all of them
RATES = {"lr": 1e-2, "min_lr": 1e-3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `first`, and another text."""
    folder = tmp_path_factory.mktemp("fine")
    train(tiny_config(folder, "first", steps=60, **RATES), Reporter())
    (folder / "other.txt").write_text(OTHER)
    return folder


def options(place: Path, tmp_path: Path, **changes: Any) -> TrainConfig:
    usual = {"init": str(place / "first"), "data": [str(place / "other.txt")], "model": ModelConfig()}
    return tiny_config(tmp_path, **{**usual, "eval_batches": 0, **changes})


def test_it_starts_where_the_other_run_ended(place: Path, tmp_path: Path, quick_runs: None) -> None:
    first, before = Run.load(place / "first", "numpy"), []
    config = options(place, tmp_path, steps=4, film=2, warmup=4, lr=1e-3, min_lr=0.0)
    run = train(config, Acting(0, lambda: before.append(load_model(Path(config.out))[0].flat.copy())))
    assert np.array_equal(before[0], first.model.parameters.flat)
    assert np.array_equal(load_model(run.folder / "film" / "step-00000000.safetensors")[0].flat, before[0])
    assert not np.array_equal(run.model.parameters.flat, before[0])
    assert run.tokenizer.alphabet == first.tokenizer.alphabet
    assert set(OTHER) < set(TEXT)
    assert run.model.config == first.model.config
    assert run.config == replace(config, model=first.model.config)
    assert [record["lr"] for record in run.history[1:4]] == pytest.approx([2.5e-4, 5e-4, 7.5e-4])  # the warmup, anew
    assert [step for step, _ in checkpoints(run.folder)] == [4, 3]
    facts = json.loads((run.folder / "options.json").read_text())["facts"]
    assert facts["start"] == f"with the weights of {config.init}, after step 60"


def test_it_helps(place: Path, tmp_path: Path, quick_runs: None) -> None:
    """On the other text, the loss falls below where it started, and below that of a run with random weights."""
    tuned = train(options(place, tmp_path, steps=20, eval_every=20, **RATES), Reporter())
    fresh = train(options(place, tmp_path, out=str(tmp_path / "fresh"), steps=20, eval_every=20, **RATES, init="",
                          model=replace(TINY)), Reporter())  # fmt: skip
    losses = [[record["val_loss"] for record in (run.history[0], run.history[-1])] for run in (tuned, fresh)]
    assert losses[0][1] < losses[0][0] < losses[1][0]
    assert losses[0][1] < losses[1][1]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_resumes_exactly_without_the_run_that_it_started_from(
    place: Path, tmp_path: Path, optimizer: Any, quick_runs: None
) -> None:
    copy = shutil.copytree(place / "first", tmp_path / "first")
    usual = {"init": str(copy), "steps": 6, "optimizer": optimizer, "save_every": 2}
    whole = train(options(place, tmp_path, **usual, out=str(tmp_path / "whole")), Reporter())

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options(place, tmp_path, **usual, out=str(tmp_path / "half")), Acting(3, stop))
    shutil.rmtree(copy)
    train(resume(tmp_path / "half"), Reporter())
    assert result(tmp_path / "half") == result(whole.folder)
    with pytest.raises(ConfigError, match=r"init is other; .* started with .*first, which cannot be changed\."):
        train(resume(tmp_path / "half", init="other"), Reporter())


def test_dropout_and_precision_may_differ(place: Path, tmp_path: Path, quick_runs: None) -> None:
    first = load_model(place / "first")[0]
    model = replace(first.config, dropout=0.5, dtype="float64")
    config, states = options(place, tmp_path, model=model, steps=2, film=0), []
    run = train(config, Acting(0, lambda: states.append(load_model(Path(config.out))[0])))
    assert run.model.config == model
    assert states[0].config == model
    assert all(np.array_equal(states[0][name], view) for name, view in first.items())
    assert states[0].flat.dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": ModelConfig(ctx=8, dim=16, layers=2, heads=2)}, ConfigError,
         r"^dim=16 differs from \S+first, which has dim=8; a run with init has the sizes of the model"),
        ({"model": replace(TINY, tie=False)}, ConfigError, "tie=False differs from"),
        ({"init": "nowhere"}, CheckpointError, "There is no run nowhere"),
        ({"data": ["TEXT"]}, DataError, r"^The text contains 'é' \(character 5\), which the model does not know"),
    ],
)  # fmt: skip
def test_what_cannot_be(place: Path, tmp_path: Path, changes: dict[str, Any], kind: type, words: str) -> None:
    (tmp_path / "strange.txt").write_text("the é" * 99, "utf-8")
    if changes.get("data") == ["TEXT"]:
        changes = {"data": [str(tmp_path / "strange.txt")]}
    with pytest.raises(kind, match=words):
        train(options(place, tmp_path, **changes), Reporter())
    assert not (tmp_path / "run").exists()


def test_the_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, text, out = str(place / "first"), str(place / "other.txt"), str(tmp_path / "run")
    words = ["train", "--init", first, "--data", text, "--out", out, "--steps", "2", "--batch", "2"]
    words += ["--backend", "numpy"]
    for more, error in (
        (["--preset", "tiny"], f"--preset cannot be combined with --init; {first} has its own sizes."),
        (["--config", first], "--config cannot be combined with --init"),
        (["--ctx", "16"], f"--ctx 16 differs from {first}, which has --ctx 8"),
        (["--no-bias"], f"--no-bias differs from {first}, which has --bias"),
    ):
        assert main([*words, *more]) == 2
        assert error in capsys.readouterr().err
        assert not Path(out).exists()
    assert main(["train", "--resume", first, "--init", first, "--data", text]) == 2
    assert f"--init is {first}; {first} started with none, which cannot be changed." in capsys.readouterr().err
    assert main([*words, "--dropout", "0.25"]) == 0
    assert f"with the weights of {first}, after step 60" in " ".join(capsys.readouterr().out.split())
    assert load_model(out)[0].config == replace(load_model(first)[0].config, dropout=0.25)


def test_a_plan_has_the_sizes_of_the_run(place: Path, tmp_path: Path) -> None:
    plan = make_plan(options(place, tmp_path))
    assert plan.config.model == load_model(place / "first")[0].config
    assert plan.vocabulary == len(set(TEXT))
