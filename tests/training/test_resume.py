"""A run that was interrupted and resumed ends with the same bits as one that was not interrupted."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import python_path
from small_runs import TEXT, Acting, result, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.errors import CheckpointError, ConfigError, DataError, UserError
from bevia_fast.runs import checkpoint
from bevia_fast.runs.checkpoint import (
    MAY_CHANGE,
    PARTS,
    checkpoints,
    load_checkpoint,
    newest_good,
    stored_config,
)
from bevia_fast.runs.folder import RunFolder
from bevia_fast.runs.progress import Progress
from bevia_fast.runs.tensorfile import open_tensors, write_tensors
from bevia_fast.training import opening

pytestmark = pytest.mark.usefixtures("quick_runs")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the progress in the header of a checkpoint."""
    tensors = load_checkpoint(path).tensors
    with open_tensors(path) as file:
        about = file.about
    change(about["progress"])
    write_tensors(path, {f"{part}.{name}": view for part in PARTS for name, view in tensors[part].items()}, about)


@pytest.mark.parametrize("step", range(10))
def test_interrupted_after_any_step(tmp_path: Path, step: int) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    run = train(tiny_config(tmp_path), Acting(step, interrupt))
    assert run.interrupted == signal.SIGINT
    assert result(run.folder)[0] == step
    again = train(stored_config(run.folder))
    assert not again.interrupted
    assert again.folder == run.folder
    assert result(run.folder) == result(whole.folder)
    for name in ("model.safetensors", "sample.txt"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_interrupted_after_each_step_in_turn(tmp_path: Path) -> None:
    whole = train(tiny_config(tmp_path, "whole", accumulate=2))
    run = train(tiny_config(tmp_path, accumulate=2), Acting(0, interrupt))
    for step in range(1, 10):
        assert train(stored_config(run.folder), Acting(step, interrupt)).interrupted
        assert len(checkpoints(run.folder)) == 2
    train(stored_config(run.folder))
    assert result(run.folder) == result(whole.folder)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_recompute_changes_no_bit_and_can_be_switched_on_when_resuming(tmp_path: Path, backend: str) -> None:
    line = (
        f"train --data {tiny_config(tmp_path).data[0]} --ctx 8 --dim 8 --layers 3 --heads 2 --batch 2 --dropout 0.1 "
        f"--eval-every 4 --warmup 2 --backend {backend}"
    ).split()
    runs = {name: str(tmp_path / name) for name in ("usual", "recompute", "both")}
    assert main([*line, "--steps", "10", "--out", runs["usual"]]) == 0
    assert main([*line, "--steps", "10", "--out", runs["recompute"], "--recompute"]) == 0
    run = train(replace(stored_config(runs["usual"]), resume="", out=runs["both"]), Acting(5, interrupt))
    assert run.interrupted
    assert main(["train", "--resume", runs["both"], "--recompute"]) == 0
    assert stored_config(runs["both"]).recompute
    assert result(runs["usual"]) == result(runs["recompute"]) == result(runs["both"])


THREADS = """
import sys
from dataclasses import replace
from pathlib import Path
from bevia_fast import ModelConfig, train
from bevia_fast.runs.checkpoint import stored_config
from small_runs import Acting, result, tiny_config
from test_resume import interrupt
folder = Path(sys.argv[1])
options = {"backend": "numba", "model": ModelConfig(ctx=48, dim=48, layers=2, heads=3, dropout=0.1), "batch": 5,
           "steps": 8}
found = []
for count in (1, 2, 3, 4):
    run = train(tiny_config(folder, f"whole-{count}", threads=count, **options))
    found.append(result(run.folder))
run = train(tiny_config(folder, "parts", threads=4, **options), Acting(2, interrupt))
for count, step in ((2, 4), (3, 5), (1, 99)):
    train(replace(stored_config(run.folder), threads=count), Acting(step, interrupt))
found.append(result(run.folder))
assert all(each == found[0] for each in found), found
"""


def test_the_number_of_threads_changes_no_bit(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_NUM_THREADS": "4", "PYTHONPATH": python_path()}
    command = [sys.executable, "-c", THREADS, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_numpy_gives_the_same_bits_with_the_same_number_of_threads(tmp_path: Path) -> None:
    """OpenBLAS may split a sum among its threads, so another number of them may give other bits."""
    model = ["--ctx", "48", "--dim", "48", "--heads", "3", "--layers", "2", "--steps", "5", "--backend", "numpy"]
    text = tiny_config(tmp_path).data[0]
    for threads in ("1", "2"):
        found = []
        for number in ("first", "second"):
            out = str(tmp_path / f"{number}-{threads}")
            command = [sys.executable, "-m", "bevia_fast", "train", "--data", text, "--out", out, *model]
            subprocess.run(command, env=os.environ | {"OPENBLAS_NUM_THREADS": threads}, check=True, capture_output=True)
            found.append(result(out))
        assert found[0] == found[1]


def test_options_of_saving_and_checking_change_no_result(tmp_path: Path) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    run = train(tiny_config(tmp_path), Acting(5, interrupt))
    changed = {"save_every": 1, "keep": 4, "sample_every": 2, "crosscheck_every": 3, "on_nan": "skip", "threads": 1}
    train(replace(stored_config(run.folder), **changed))  # type: ignore[arg-type]
    assert result(run.folder)[:2] == result(whole.folder)[:2]
    assert [step for step, _ in checkpoints(run.folder)] == [10, 9, 8, 7]
    assert json.loads((run.folder / "options.json").read_text())["keep"] == 4


def test_a_finished_run_can_be_resumed_with_more_steps(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lr=1e-3, min_lr=1e-3)  # so that the learning rates do not depend on the last step
    train(config)
    before = result(config.out)
    train(stored_config(config.out))  # no steps are left
    assert result(config.out) == before
    train(replace(stored_config(config.out), steps=16))
    whole = train(replace(config, out=str(tmp_path / "whole"), steps=16))
    assert result(config.out)[:2] == result(whole.folder)[:2]
    message = rf"^steps is 15; it must be at least 16, the steps that {config.out} has already done\.$"
    with pytest.raises(ConfigError, match=message):
        train(replace(stored_config(config.out), steps=15))


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading and verifying a large checkpoint takes long."""
    config = replace(stored_config(train(tiny_config(tmp_path)).folder), steps=12)
    read, load = list[Path](), checkpoint.load_checkpoint
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path: (read.append(path), load(path))[1])
    train(config)
    assert [path.name for path in read] == ["step-00000010.safetensors"]


def test_a_run_keeps_the_order_of_batches_that_it_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of the first order do not name it."""
    new = train(tiny_config(tmp_path, "new"))
    with monkeypatch.context() as patch:
        patch.setattr(opening, "Progress", functools.partial(Progress, order=1))
        whole = train(tiny_config(tmp_path, "whole"))
        run = train(tiny_config(tmp_path), Acting(5, interrupt))
    assert result(whole.folder)[1] != result(new.folder)[1]
    path = checkpoints(run.folder)[0][1]
    rewrite(path, lambda progress: progress.pop("order"))
    train(stored_config(run.folder))
    assert result(run.folder) == result(whole.folder)
    assert newest_good(run.folder)[0].progress.order == 1  # also from now on
    assert newest_good(new.folder)[0].progress.order == 2


@pytest.mark.parametrize("order", [0, 3, "1", None, True])
def test_an_unknown_order_of_batches_is_refused(tmp_path: Path, order: Any) -> None:
    run = train(tiny_config(tmp_path, steps=2, keep=1))
    rewrite(checkpoints(run.folder)[0][1], lambda progress: progress.update(order=order))
    with pytest.raises(CheckpointError, match="the order of batches is unknown"):
        stored_config(run.folder)


def test_numba_resumes_a_run_of_numpy(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path), Acting(5, interrupt))
    train(replace(stored_config(run.folder), backend="numba", crosscheck_every=1))
    assert result(run.folder)[0] == 10


# ------------------------------------------------------------------------------------------------------------ refusals


CHANGES: dict[str, Any] = {
    "batch": 3, "accumulate": 2, "lr": 0.1, "min_lr": 0.0, "warmup": 3, "weight_decay": 0.2, "beta1": 0.8,
    "beta2": 0.8, "eps": 1e-7, "grad_clip": 2.0, "seed": 7, "ctx": 9, "dim": 16, "layers": 3, "heads": 4,
    "activation": "relu", "norm": "post", "dropout": 0.2, "tie": False, "bias": False, "dtype": "float64",
    "optimizer": "muon", "ctx_schedule": "4:2,8", "muon_lr": 0.1, "muon_momentum": 0.5, "init": "elsewhere",
    "positions": "rotary", "window": 2, "window_layers": "all", "tokens": "bytes",
    "precision": "bf16",
}  # fmt: skip

# What a resumed run may change, written down apart from the code: an option that affects a step must not slip in.
ALLOWED: dict[str, Any] = {
    "eval_every": 3, "eval_batches": 1, "sample_every": 4, "crosscheck_every": 3, "save_every": 2, "save_seconds": 60.0,
    "keep": 1, "film": 3, "patience": 99, "on_nan": "skip", "recompute": True, "ignore_memory": True, "threads": 1,
    "allow_changed_text": True,
}  # fmt: skip
# Each has a test of its own; those of the text, because a change of it is refused or allowed as a whole.
ALLOWED_APART = {"data", "glob", "encoding", "newlines", "normalize", "out", "name", "resume", "steps", "minutes",
                 "backend"}  # fmt: skip


def test_every_option_may_change_or_not() -> None:
    """A new option that is in no list needs a decision: does it affect what a step computes?"""
    names = {field.name for kind in (TrainConfig, ModelConfig) for field in fields(kind)} - {
        "model", "vocab_size", "scale", "residual", "bias_correction",  # the last three: tests/model/test_changes.py
    }  # fmt: skip
    assert names == CHANGES.keys() | ALLOWED.keys() | ALLOWED_APART
    assert ALLOWED.keys() | ALLOWED_APART == MAY_CHANGE


@pytest.mark.parametrize("name", ALLOWED)
def test_an_option_that_may_change_changes_no_bit(tmp_path: Path, name: str, whole: tuple[int, str]) -> None:
    run = train(tiny_config(tmp_path), Acting(5, interrupt))
    train(replace(stored_config(run.folder), **{name: ALLOWED[name]}))
    assert result(run.folder)[:2] == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """Return the step and the bits of a run that was not interrupted."""
    return result(train(tiny_config(tmp_path_factory.mktemp("whole"))).folder)[:2]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was interrupted after step 5."""
    config = tiny_config(tmp_path_factory.mktemp("stopped"))
    return train(config, Acting(5, interrupt)).folder


@pytest.mark.parametrize("name", CHANGES)
def test_options_that_may_not_change_are_refused_by_name(
    stopped: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(stopped)
    value = CHANGES[name]
    option = "--" + name.replace("_", "-")
    words = ["--no-" + name] if value is False else [option, str(value)]
    assert main(["train", "--resume", str(stopped), *words]) == 2
    error = capsys.readouterr().err
    assert option in error
    assert "which cannot be changed." in error
    assert error.count("\n") == 1
    config = stored_config(stopped)
    is_model = any(field.name == name for field in fields(ModelConfig))
    changed = replace(config, model=replace(config.model, **{name: value})) if is_model else replace(
        config, **{name: value}
    )
    with pytest.raises(ConfigError, match=rf"{name} is .*, which cannot be changed\."):
        train(changed)
    assert contents(stopped) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "--resume needs a value"),
        (["--resume", "--steps", "3"], "--resume needs a value"),
        (["--resume="], "--resume needs a value"),
        (["--resume", "nowhere"], "There is no run nowhere."),
        (["--resume", "a\0b"], "NUL"),
        (["--resume", "RUN", "--out", "other"], "--out is other; a resumed run stays in its folder"),
        (["--resume", "RUN", "--preset", "baby"], "--preset cannot be combined with --resume"),
        (["--resume", "RUN", "--steps", "4"], "--steps is 4; it must be at least 5, the steps that "),
        (["--resume", "RUN", "--stepz", "4"], "did you mean --steps?"),
    ],
)
def test_wrong_ways_to_resume(
    stopped: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(stopped)
    assert main(["train", *(word.replace("RUN", str(stopped)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert contents(stopped) == before


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    for make in (lambda: None, lambda: (tmp_path / "checkpoints").mkdir()):
        make()
        with pytest.raises(CheckpointError, match="has no checkpoint to resume from"):
            stored_config(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is part of a run"):  # the folder has a folder of checkpoints
        stored_config(tmp_path / "file")


def test_a_folder_without_checkpoints_stays_as_it_is(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(CheckpointError, match="has no checkpoint to resume from"):
        train(replace(config, out="", resume=str(tmp_path / "photos")))
    assert list((tmp_path / "photos").iterdir()) == []


def test_another_text_is_refused_unless_allowed(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path), Acting(5, interrupt))
    text = tmp_path / "text.txt"
    text.write_text(TEXT.replace("cat", "dog"))
    before = contents(run.folder)
    with pytest.raises(DataError, match=r"not the one that .* started with; allow_changed_text=True"):
        train(stored_config(run.folder))
    text.write_text(TEXT + "ö")
    with pytest.raises(DataError, match=r"'ö' .* which the model does not know"):
        train(replace(stored_config(run.folder), allow_changed_text=True))
    assert contents(run.folder) == before
    text.write_text(TEXT.replace("cat", "dog"))
    train(replace(stored_config(run.folder), allow_changed_text=True), Acting(7, interrupt))
    train(stored_config(run.folder))  # the new text needs no option from now on
    assert result(run.folder)[0] == 10


def test_a_text_can_be_moved(tmp_path: Path) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    run = train(tiny_config(tmp_path), Acting(5, interrupt))
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    with pytest.raises(DataError, match=r"text\.txt, which is not there; name the text with data"):
        train(stored_config(run.folder))
    assert main(["train", "--resume", str(run.folder), "--data", str(tmp_path / "moved.txt")]) == 0
    assert result(run.folder) == result(whole.folder)


def test_a_resumed_run_does_not_wait_for_its_text_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stdin:
        def __init__(self, terminal: bool) -> None:
            self.buffer, self.isatty = io.BytesIO(TEXT.encode()), lambda: terminal

    monkeypatch.setattr(sys, "stdin", Stdin(False))
    run = train(tiny_config(tmp_path, data=["-"]), Acting(5, interrupt))
    before = contents(run.folder)
    monkeypatch.setattr(sys, "stdin", Stdin(True))
    with pytest.raises(DataError, match="reads its text from standard input, which is a terminal now; pipe"):
        train(stored_config(run.folder))
    assert contents(run.folder) == before
    assert train(replace(stored_config(run.folder), data=[str(tmp_path / "text.txt")], steps=6)).folder == run.folder
    monkeypatch.setattr(sys, "stdin", Stdin(False))
    train(replace(stored_config(run.folder), data=["-"], steps=10))
    assert result(run.folder)[0] == 10


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(UserError) as caught:
            train(stored_config(tmp_path / "run"))
        refused.append(str(caught.value))

    train(tiny_config(tmp_path), Acting(5, second))
    assert refused == [f"Another process is training in {tmp_path / 'run'}."]
    RunFolder.existing(tmp_path / "run").close()


# ---------------------------------------------------------------------------------------------------------------- kill


def unfinished_saves(run: Path) -> set[Path]:
    """Return the temporary files of saves that have not finished; their names contain the process ID."""
    return {path for folder in (run, run / "checkpoints") for path in folder.glob(".*.part")}


def kill_and_resume(folder: Path, kills: int, seed: int) -> tuple[int, int, int]:
    """Kill runs at random moments, resume each to its end, and compare it with a run that was left alone.

    A save is so short that a random moment may never hit one, so every third kill waits for the temporary file of a
    save. Returns the number of kills, the number of kills during a save, and the number of finished runs.
    """
    random_numbers = random.Random(seed)
    options = {"steps": 900, "eval_every": 50, "save_every": 3, "sample_every": 40}
    whole = result(train(tiny_config(folder, "whole", **options)).folder)
    words = ["--ctx", "8", "--dim", "8", "--heads", "2", "--layers", "2", "--dropout", "0.1", "--batch", "2",
             "--warmup", "2", "--lr", "1e-3", "--min-lr", "1e-4", "--eval-batches", "2", "--backend", "numpy",
             "--data", str(folder / "text.txt"),
             "--save-seconds", "0"]  # fmt: skip
    words += [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
    killed = saving = ended = 0
    while killed < kills:
        run = folder / f"run-{ended}"
        while True:
            resumes = run.exists() and list((run / "checkpoints").glob("step-*"))
            command = ["--resume", str(run)] if resumes else ["--out", str(run), *words]
            if run.exists() and not resumes:  # killed before the first checkpoint
                shutil.rmtree(run)
            metrics, log = run / "metrics.jsonl", folder / "output.txt"
            before, leftovers = metrics.stat().st_mtime_ns if metrics.exists() else 0, unfinished_saves(run)
            with open(log, "wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "bevia_fast", "train", *command], stdout=output, stderr=output
                )
                if killed < kills:
                    if random_numbers.random() < 0.9:  # otherwise it may be killed before it starts
                        while process.poll() is None and (
                            not metrics.exists() or metrics.stat().st_mtime_ns == before
                        ):
                            time.sleep(0.002)
                    time.sleep(random_numbers.uniform(0.0, 0.6))
                    while killed % 3 == 2 and process.poll() is None and unfinished_saves(run) <= leftovers:
                        pass
                    process.kill()
                code = process.wait(timeout=120)
            if code == 0:
                break
            assert code == -signal.SIGKILL, log.read_text()
            killed += 1
            saving += not unfinished_saves(run) <= leftovers
        assert result(run) == whole
        assert not list(run.rglob(".*.part"))
        ended += 1
    return killed, saving, ended


def test_kill_9_a_few_times(tmp_path: Path) -> None:
    assert kill_and_resume(tmp_path, 2, 1)[0] == 2


@pytest.mark.slow
def test_kill_9_at_60_random_moments(tmp_path: Path) -> None:
    killed, saving, ended = kill_and_resume(tmp_path, 60, 2)
    print(f"{killed} killed, {saving} of them while saving; {ended} runs ended with the same bits")
    assert saving
