"""The film that a run leaves: the same files, whatever interrupted it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import Acting, tiny_config

from bevia_fast import Run, generate, train
from bevia_fast.commands.main import main
from bevia_fast.errors import CheckpointError
from bevia_fast.model.parameters import Parameters
from bevia_fast.reporter import Reporter, Reporters
from bevia_fast.runs import film
from bevia_fast.runs.checkpoint import checkpoints, load_checkpoint, stored_config
from bevia_fast.runs.film import frame_path, frames
from bevia_fast.runs.modelfile import load_model

pytestmark = pytest.mark.usefixtures("quick_runs")


def contents(run: Path) -> dict[str, bytes]:
    """Return all files of a run's film."""
    return {path.name: path.read_bytes() for path in sorted((run / "film").iterdir())}


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_film_shows_the_weights_of_its_steps(tmp_path: Path) -> None:
    """Each frame has the bits of the checkpoint of its step; the first those of the initial weights."""
    run = train(tiny_config(tmp_path, film=4, save_every=1, keep=20))
    assert [step for step, _ in frames(run.folder)] == [0, 1, 3, 10]
    for step, path in frames(run.folder):
        weights = load_model(path)[0]
        if step:
            [file] = [file for found, file in checkpoints(run.folder) if found == step]
            assert weights.flat.tobytes() == load_checkpoint(file).tensors["weights"].flat.tobytes()
        else:
            assert weights.flat.tobytes() == Parameters.initial(run.model.config, 1337).flat.tobytes()
    assert frame_path(run.folder, 10).read_bytes() == (run.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("last", [0, 1, 2, 3, 5, 9])
def test_a_resumed_run_has_the_same_film(tmp_path: Path, last: int) -> None:
    whole = train(tiny_config(tmp_path, "whole", film=6))
    run = train(tiny_config(tmp_path, film=6), Acting(last, interrupt))
    assert run.step == last
    train(stored_config(run.folder))
    assert contents(run.folder) == contents(whole.folder)


@pytest.mark.parametrize("step", [1, 2, 4, 7, 10])
def test_a_killed_run_has_the_same_film(tmp_path: Path, step: int) -> None:
    """Killed in the middle of a step's frame, before the checkpoint: the rest of the file is removed."""
    whole = train(tiny_config(tmp_path, "whole", film=10))
    script = f"""
import os, sys
from pathlib import Path
from small_runs import tiny_config
from bevia_fast import files, train
real = files.flush
def flush(handle):
    if os.path.basename(os.readlink(f"/proc/self/fd/{{handle}}")).startswith(".step-{step:08d}"):
        os.kill(os.getpid(), 9)
files.flush = flush
train(tiny_config(Path(sys.argv[1]), film=10))
"""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell the names of open files")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -9
    assert any(path.name.endswith(".part") for path in (tmp_path / "run" / "film").iterdir())
    train(stored_config(tmp_path / "run"))
    assert contents(tmp_path / "run") == contents(whole.folder)


def test_a_longer_run_keeps_the_frames_it_has(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, film=4))
    train(replace(stored_config(run.folder), steps=100))
    assert [step for step, _ in frames(run.folder)] == [0, 1, 3, 10, 100]


def test_frames_of_a_future_that_will_not_come_are_removed(tmp_path: Path) -> None:
    """A run that resumes from an earlier checkpoint with fewer steps."""
    run = train(tiny_config(tmp_path, film=4, keep=9))
    for step, path in checkpoints(run.folder):
        if step > 6:
            path.unlink()
    train(replace(stored_config(run.folder), steps=8))
    assert [step for step, _ in frames(run.folder)] == [0, 1, 3, 8]


def test_no_film(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, film=0))
    assert not (run.folder / "film").exists()


def test_the_film_changes_no_bit_of_the_run(tmp_path: Path) -> None:
    with_film, without = train(tiny_config(tmp_path, "a", film=10)), train(tiny_config(tmp_path, "b", film=0))
    assert with_film.model.parameters.flat.tobytes() == without.model.parameters.flat.tobytes()


def test_a_run_of_an_earlier_version_gets_no_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoints do not name the option."""
    from bevia_fast.runs import checkpoint

    described = checkpoint.asdict

    def without_film(value: Any) -> Any:
        found = described(value)
        found.pop("film", None)
        return found

    monkeypatch.setattr(checkpoint, "asdict", without_film)
    run = train(tiny_config(tmp_path, film=0), Acting(5, interrupt))
    monkeypatch.undo()
    assert stored_config(run.folder).film == 0
    train(stored_config(run.folder))
    assert frames(run.folder) == []


def test_a_frame_that_cannot_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on, and so does the film."""
    real = film.save_model

    def save(path: Path, *arguments: Any) -> int:
        if path.name == "step-00000003.safetensors":
            raise CheckpointError(f"Cannot write {path}: No space left on device.")
        return real(path, *arguments)

    monkeypatch.setattr(film, "save_model", save)
    reporter = Acting()
    run = train(tiny_config(tmp_path, film=4), reporter)
    assert [step for step, _ in frames(run.folder)] == [0, 1, 10]
    place = frame_path(run.folder, 3)
    assert reporter.notes == [f"step 3 is missing in the film: Cannot write {place}: No space left on device."]


def test_its_cost_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Cost(Reporter):
        def filmed(self, count: int, size: int, seconds: float, of: float) -> None:
            self.found = (count, size, 0 < seconds < of)

        def __init__(self) -> None:
            self.found: tuple[int, int, bool] | None = None

    first, second = Cost(), Cost()
    run = train(tiny_config(tmp_path, film=4), Reporters([first, second]))
    size = sum(map(len, contents(run.folder).values()))
    assert first.found == second.found == (4, size, True)
    text = tiny_config(tmp_path).data[0]
    small = ["--ctx", "8", "--dim", "8", "--layers", "1", "--heads", "1", "--steps", "3", "--backend", "numpy"]
    assert main(["train", text, "--out", str(tmp_path / "shown"), *small, "--film", "2"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("film")]
    assert line.startswith("film     2 frames, ")
    assert line.endswith("% of the time")


def test_a_frame_writes_text(tmp_path: Path) -> None:
    """Every command that takes a model takes a frame; it belongs to its run."""
    run = train(tiny_config(tmp_path, film=3))
    path = frame_path(run.folder, 1)
    assert len(generate(path, "the", length=5, backend="numpy")) == 8
    found = Run.load(path, "numpy")
    assert (found.folder, found.step) == (run.folder, 1)
    assert found.config == run.config
    assert not np.array_equal(found.model.parameters.flat, run.model.parameters.flat)


def test_a_folder_of_that_name_is_not_written_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run" / "film").mkdir(parents=True)
    text = tiny_config(tmp_path).data[0]
    assert main(["train", text, "--out", str(tmp_path / "run"), "--steps", "1"]) == 2
    message = f"{tmp_path / 'run'} contains film, into which the run would write; choose another folder with --out."
    assert capsys.readouterr().err == f"bevia-fast: error: {message}\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["film"]
