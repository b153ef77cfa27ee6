"""The best model of a run: which weights it has, wherever the run was interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import python_path
from small_runs import Acting, result, tiny_config

from bevia_fast import Run, train
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.model.gpt import GPT
from bevia_fast.reporter import Reporter, Reporters
from bevia_fast.runs import best as best_files
from bevia_fast.runs.best import earlier_models
from bevia_fast.runs.checkpoint import checkpoints, load_checkpoint, newest_good, stored_config
from bevia_fast.runs.film import frame_path
from bevia_fast.runs.modelfile import load_trained
from bevia_fast.runs.progress import Best
from bevia_fast.training import best as keeping
from bevia_fast.training import loop
from bevia_fast.training.best import verdict

pytestmark = pytest.mark.usefixtures("quick_runs")
EVERY_STEP: dict[str, Any] = {"eval_every": 1, "film": 1000, "save_every": 3}


def unsteady(model: GPT, *others: object) -> float:
    """A loss that goes up and down, and depends on nothing but the weights."""
    return float(abs(model.parameters.flat[:50].sum(dtype="float64")) * 1e4 % 1.0)


@pytest.fixture
def unsteady_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "evaluate", unsteady)


def scripted(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Let the evaluations of a run, that of step 0 first, return these losses."""
    found = iter(losses)
    monkeypatch.setattr(loop, "evaluate", lambda *anything: next(found))


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def assert_best(run: Path) -> int:
    """Assert that the best model has the weights of the step with the lowest loss; return that step."""
    history = {record["step"]: record["val_loss"] for record in Run.load(run, "numpy").history if record["step"]}
    step = min((loss, step) for step, loss in history.items() if loss is not None)[1]
    parameters, _, found = load_trained(run / "best.safetensors")
    assert found == step
    assert parameters.flat.tobytes() == load_trained(frame_path(run, step))[0].flat.tobytes()
    state = newest_good(run)[0].progress.best
    assert (state.step, state.loss) == (step, history[step])
    assert state.since == sum(loss is not None and later > step for later, loss in history.items())
    return step


class Words(Reporter):
    """Keeps what is said of the best model, and the notes."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []
        self.notes: list[str] = []

    def best(self, step: int, words: str) -> None:
        self.said.append((step, words))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.usefixtures("unsteady_losses")
def test_the_best_model_has_the_weights_of_the_lowest_loss(tmp_path: Path) -> None:
    words = Words()
    run = train(tiny_config(tmp_path, **EVERY_STEP), words)
    step = assert_best(run.folder)
    assert 0 < step < 10, "the losses of this test should go up and down"
    assert run.step == 10
    assert run.best.step == step
    assert [said for said, _ in words.said] == [step]


@pytest.mark.usefixtures("unsteady_losses")
@pytest.mark.parametrize("step", range(10))
def test_a_run_interrupted_after_any_step_has_the_same_best_model(tmp_path: Path, step: int) -> None:
    whole = train(tiny_config(tmp_path, "whole", **EVERY_STEP))
    run = train(tiny_config(tmp_path, **EVERY_STEP), Acting(step, interrupt))
    again = train(stored_config(run.folder))
    assert (again.folder / "best.safetensors").read_bytes() == (whole.folder / "best.safetensors").read_bytes()
    assert assert_best(run.folder) == assert_best(whole.folder)


class Killed(BaseException):
    """Ends a run where a signal 9 would, as far as the files of the best model are concerned."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let the best model's change of files number `number` be the last thing that happens, before or after it."""
    count = [0]

    def counting(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == number:
                raise Killed
            done = function(*arguments, **options)
            count[0] += 1
            if count[0] == number:
                raise Killed
            return done

        return call

    monkeypatch.setattr(best_files, "save_model", counting(best_files.save_model))
    monkeypatch.setattr(best_files.os, "replace", counting(os.replace))
    monkeypatch.setattr(best_files.os, "unlink", counting(os.unlink))
    return count


@pytest.mark.slow
@pytest.mark.usefixtures("unsteady_losses")
@pytest.mark.parametrize("changes", [{}, {"steps": 17}, {"eval_every": 2}], ids=str)
def test_a_run_killed_between_any_two_changes_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Also if it takes another way afterwards, on which the best model that was there never comes."""
    options = {**EVERY_STEP, "keep": 2, "film": 0, "steps": 8, "save_every": 2}
    number, ways = 0, 0
    while True:
        number += 1
        config = tiny_config(tmp_path, f"run-{number}", **options)
        with monkeypatch.context() as killing:
            killed_at(killing, number)
            try:
                train(config)
            except Killed:
                pass
            else:
                break
        if not checkpoints(Path(config.out)):
            continue
        ways += 1
        before = newest_good(config.out)[0]
        notes = Words()
        train(replace(stored_config(config.out), **changes, film=1000), notes)
        assert notes.notes == []
        found = load_trained(Path(config.out) / "best.safetensors")
        state = newest_good(config.out)[0].progress.best
        assert found[2] == state.step
        if state.step > before.progress.step:  # that of a step that was taken after the kill
            frame = load_trained(frame_path(Path(config.out), state.step))
            assert found[0].flat.tobytes() == frame[0].flat.tobytes()
        else:
            assert state.step == before.progress.best.step
            assert unsteady(Run.load(config.out, "numpy", checkpoint="best").model) == state.loss
    assert ways > 9


SCRIPT = """
import os, sys
from pathlib import Path
from small_runs import tiny_config
import test_best_model
from bevia_fast import train
from bevia_fast.training import loop
from bevia_fast.runs import best
loop.evaluate = test_best_model.unsteady
real, count = os.replace, 0
def replace(old, new):
    global count
    real(old, new)
    if Path(new).name == "best.safetensors":
        count += 1
        if count == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
best.os.replace = replace
train(tiny_config(Path(sys.argv[1]), **test_best_model.EVERY_STEP))
"""


@pytest.mark.usefixtures("unsteady_losses")
@pytest.mark.parametrize("number", [1, 2])
def test_a_run_killed_before_the_checkpoint_of_its_best_model(tmp_path: Path, number: int) -> None:
    whole = train(tiny_config(tmp_path, "whole", **EVERY_STEP))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), python_path()])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(number)]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -9
    assert (tmp_path / "run" / "best.safetensors").exists()
    train(stored_config(tmp_path / "run"))
    best = (tmp_path / "run" / "best.safetensors").read_bytes()
    assert best == (whole.folder / "best.safetensors").read_bytes()
    assert result(tmp_path / "run") == result(whole.folder)


@pytest.mark.usefixtures("unsteady_losses")
def test_earlier_best_models_go_with_the_checkpoints_that_name_them(tmp_path: Path) -> None:
    for keep in (1, 2, 9):
        run = train(tiny_config(tmp_path, f"keep-{keep}", **EVERY_STEP, keep=keep))
        named = {load_checkpoint(path).progress.best.step for _, path in checkpoints(run.folder)} - {None}
        there = {step for step, _ in earlier_models(run.folder)} | {run.best.step}
        assert there == named


@pytest.mark.usefixtures("unsteady_losses")
def test_an_older_checkpoint_has_its_own_best_model(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, **EVERY_STEP, keep=9))
    kept = {step: load_checkpoint(path).progress.best.step or 0 for step, path in checkpoints(run.folder)}
    [latest] = [step for step in kept if kept[step] < run.best.step][:1]
    for step, path in checkpoints(run.folder):
        if step > latest:
            path.unlink()
    train(replace(stored_config(run.folder), steps=latest))
    assert Run.load(run.folder, "numpy").step == kept[latest] < run.best.step or run.best.step == kept[latest]
    assert load_trained(run.folder / "best.safetensors")[2] == kept[latest]


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
def test_patience_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int) -> None:
    """An equal loss is not a better one, and neither is one that is not a number."""
    scripted(monkeypatch, 0.5, 3.0, 2.0, 2.0, 1.0, 1.5, 1.0, float("nan"), 4.0, 5.0, 6.0)
    words = Words()
    run = train(tiny_config(tmp_path, eval_every=1, patience=patience), words)
    assert run.step == {0: 10, 1: 3, 2: 6, 3: 7}[patience]
    assert not run.interrupted
    assert run.best.step == {0: 4, 1: 2, 2: 4, 3: 4}[patience]
    if patience == 2:
        assert words.notes == [
            "training ended at step 6 of 10: patience allows 2 evaluations without a better validation loss."
        ]
    if patience == 0:
        assert words.notes == []
    assert (run.folder / "sample.txt").exists()


@pytest.mark.usefixtures("unsteady_losses")
@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 6, 7])
def test_patience_counts_on_after_an_interruption(tmp_path: Path, step: int) -> None:
    whole = train(tiny_config(tmp_path, "whole", **EVERY_STEP, patience=3))
    assert 3 < whole.step < 10
    run = train(tiny_config(tmp_path, **EVERY_STEP, patience=3), Acting(step, interrupt))
    train(stored_config(run.folder))
    assert result(run.folder) == result(whole.folder)
    assert {path.name for path in (run.folder / "film").iterdir()} == {
        path.name for path in (whole.folder / "film").iterdir()
    }


def test_a_run_that_ended_early_goes_on_with_more_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 9.0, 1.0, 2.0, 2.0, 3.0, 0.5, *[1.0] * 9)
    run = train(tiny_config(tmp_path, eval_every=1, patience=2, film=2))
    assert run.step == 3
    assert frame_path(run.folder, 3).exists(), "a film ends with the last step that the run took"
    assert train(stored_config(run.folder)).step == 3
    again = train(replace(stored_config(run.folder), patience=4))
    assert (again.step, again.best.step) == (9, 5)


def test_a_run_of_an_earlier_version_goes_on_without_a_best_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints know neither the option nor the best loss."""
    from bevia_fast.runs import checkpoint

    described = checkpoint.asdict

    def earlier(value: Any) -> Any:
        return {name: each for name, each in described(value).items() if name not in ("patience", "best")}

    with monkeypatch.context() as before:
        before.setattr(checkpoint, "asdict", earlier)
        run = train(tiny_config(tmp_path), Acting(6, interrupt))
    (run.folder / "best.safetensors").unlink()
    assert run.best is run
    words = Words()
    again = train(stored_config(run.folder), words)
    losses = {record["val_loss"]: record["step"] for record in again.history if record["step"] > 6}
    assert again.best.step == losses[min(filter(None, losses))]
    assert words.notes == []


@pytest.mark.usefixtures("unsteady_losses")
def test_a_lost_best_model_is_a_note(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, **EVERY_STEP, keep=1), Acting(8, interrupt))
    state = newest_good(run.folder)[0].progress.best
    assert state.step < 8
    (run.folder / "best.safetensors").unlink()
    words = Words()
    train(stored_config(run.folder), words)
    assert words.notes == [
        f"best.safetensors of step {state.step} is missing or damaged; the best model is chosen anew from here."
    ]


@pytest.mark.usefixtures("unsteady_losses")
def test_another_text_starts_the_best_model_anew(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, **EVERY_STEP), Acting(8, interrupt))
    (tmp_path / "text.txt").write_text((tmp_path / "text.txt").read_text()[::-1])
    again = train(replace(stored_config(run.folder), allow_changed_text=True))
    assert again.best.step > 8


def test_a_best_model_that_cannot_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 9.0, 3.0, 2.0, 2.5, *[4.0] * 9)
    real = keeping.save_best

    def full(*arguments: Any) -> None:
        if arguments[3] == 2:
            raise CheckpointError("Cannot write: No space left on device.")
        real(*arguments)

    monkeypatch.setattr(keeping, "save_best", full)
    words = Words()
    run = train(tiny_config(tmp_path, eval_every=1, patience=2), words)
    assert words.notes[0] == (
        "step 2 is the best so far, but is not kept as such: Cannot write: No space left on device."
    )
    assert (run.step, run.best.step) == (5, 3)  # better than what is kept, and the count begins again


@pytest.mark.parametrize(
    ("best", "last", "training", "said"),
    [
        (Best(500, 2.135), 2.944, 1.2, "2.135 at step 500; 2.944 at the end: overfitting"),
        (Best(500, 2.135), 2.944, 2.9, "2.135 at step 500; 2.944 at the end"),  # it diverges
        (Best(500, 2.0), 2.019, 1.2, "2.000 at step 500; 2.019 at the end"),  # within 1 %
        (Best(500, 2.0), 2.021, 1.2, "2.000 at step 500; 2.021 at the end: overfitting"),
        (Best(900, 2.0), 2.0, 1.2, "2.000 at the end"),
    ],
)
def test_the_verdict(best: Best, last: float, training: float, said: str) -> None:
    assert verdict(best, 900, last, training) == said


def test_all_reporters_hear_of_the_best_model() -> None:
    words = [Words(), Words()]
    Reporters(words).best(3, "2.000 at the end")
    assert [each.said for each in words] == [[(3, "2.000 at the end")]] * 2


def test_a_folder_with_a_best_model_contains_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="already contains a run"):
        train(tiny_config(tmp_path))


def test_a_wrong_patience() -> None:
    from bevia_fast import TrainConfig

    with pytest.raises(ConfigError, match="patience is -1; it must be from 0 to"):
        TrainConfig(patience=-1)


def test_weights_of_another_run_count_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If training makes them worse, they are the best model, also after an interruption."""
    start = train(tiny_config(tmp_path, "start"))
    config = tiny_config(tmp_path, init=str(start.folder), **EVERY_STEP)
    scripted(monkeypatch, 1.0, *[2.0] * 20)
    words = Words()
    run = train(config, Reporters([words, Acting(4, interrupt)]))
    assert newest_good(run.folder)[0].progress.best == Best(0, 1.0, 4)
    run = train(stored_config(run.folder), words)
    assert words.said[-1] == (0, "1.000 at step 0; 2.000 at the end")  # not below it: the training loss is far above 1
    parameters, _, step = load_trained(run.folder / "best.safetensors")
    assert step == 0
    assert parameters.flat.tobytes() == start.model.parameters.flat.tobytes()
    assert not earlier_models(run.folder)
    assert not words.notes


def test_weights_of_another_run_give_way_to_better_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = train(tiny_config(tmp_path, "start"))
    scripted(monkeypatch, 1.0, *[0.5] * 20)
    run = train(tiny_config(tmp_path, init=str(start.folder), **EVERY_STEP))
    assert newest_good(run.folder)[0].progress.best == Best(1, 0.5, 9)
    assert load_trained(run.folder / "best.safetensors")[2] == 1
