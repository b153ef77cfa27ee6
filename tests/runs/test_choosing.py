"""Which of a run's models a command takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import tiny_config

from bevia_fast import Run, explore, generate, train
from bevia_fast.commands.main import main
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.runs.choosing import chosen_model
from bevia_fast.training import loop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 10 steps whose best model is that of step 4."""
    losses = {0: 9.0, 1: 3.0, 2: 1.0}
    number = iter(range(9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", lambda *anything: losses.get(next(number) + 1, 2.0))
        patch.setattr("bevia_fast.training.loop._Session._draw", lambda self: None)
        # evaluations of the steps 0, 4, 8 and 10
        return train(tiny_config(tmp_path_factory.mktemp("chosen"), film=3, save_every=3))


def test_the_best_model_is_taken_unless_another_is_named(run: Run) -> None:
    assert chosen_model(run.folder).name == "best.safetensors"
    assert [Run.load(run.folder, "numpy", checkpoint=name).step for name in ("best", "last", 4, 9, "10")] == [
        4, 10, 4, 9, 10,
    ]  # fmt: skip
    best, last = (generate(run.folder, "the", length=80, backend="numpy", checkpoint=name) for name in ("best", "last"))
    assert best == generate(run.folder, "the", length=80, backend="numpy") == generate(run.best, "the", length=80)
    assert last == generate(run, "the", length=80) != best
    assert '"step":4' in explore(run.folder, "the cat").html.replace(" ", "")
    assert '"step":10' in explore(run.folder, "the cat", checkpoint="last").html.replace(" ", "")


def test_a_step_that_is_not_there(run: Run) -> None:
    with pytest.raises(CheckpointError) as error:
        Run.load(run.folder, "numpy", checkpoint=5)
    assert str(error.value) == f"{run.folder} has no model of step 5; it has those of the steps 0, 1, 4, 9, 10."


def test_a_run_without_a_best_model_has_its_last_one(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    assert Run.load(tmp_path, "numpy").step == Run.load(tmp_path, "numpy", checkpoint="last").step == 10


def test_a_file_leaves_nothing_to_choose(run: Run) -> None:
    file = run.folder / "model.safetensors"
    assert chosen_model(file) == file
    with pytest.raises(CheckpointError) as error:
        chosen_model(file, "last")
    assert str(error.value) == f"{file} is a model of its own; checkpoint chooses from a run."


@pytest.mark.parametrize("name", ["first", "", "-1", "1.5", "9" * 16, "²"])
def test_what_is_no_model(run: Run, name: str) -> None:
    with pytest.raises(ConfigError, match="it must be 'best', 'last' or the number of a step"):
        Run.load(run.folder, "numpy", checkpoint=name)


def test_the_commands_take_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, texts = str(run.folder), []
    for name in ("best", "last", "9"):
        assert main(["generate", folder, "the", "--length", "80", "--backend", "numpy", "--checkpoint", name]) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3
    remark = "note: this is the model of step 4, the best; --checkpoint last takes that of 10.\n"
    for words in (["explore", folder, "--out", str(tmp_path / "page.html")],
                  ["attention", folder, "the", "--out", str(tmp_path / "maps.png")]):  # fmt: skip
        assert main(words) == 0
        assert remark in capsys.readouterr().out
        assert main([*words, "--checkpoint", "last"]) == 0
        assert "note: this is" not in capsys.readouterr().out
        assert main([*words, "--checkpoint", "5"]) == 2
        assert "has no model of step 5; it has those of the steps" in capsys.readouterr().err
        assert main([*words, "--checkpoint", "worst"]) == 2
        assert "--checkpoint is 'worst'; it must be" in capsys.readouterr().err
