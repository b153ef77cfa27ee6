"""The code that saves, on a disk that fails: at each system call in turn, in every way."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import Acting, digest, result, tiny_config

from bevia_fast import train
from bevia_fast.errors import CheckpointError, StoppedRun
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.checkpoint import PARTS, checkpoints, newest_good, stored_config
from bevia_fast.runs.folder import RunFolder, read_metrics
from bevia_fast.runs.modelfile import load_model
from bevia_fast.training import saving
from bevia_fast.training.saving import Saver

pytestmark = pytest.mark.usefixtures("quick_runs")

CALLS = ("open", "write", "fsync", "read", "replace", "unlink", "mkdir", "ftruncate", "fstat", "close", "listdir",
         "scandir", "stat", "lseek")  # fmt: skip
KINDS: dict[str, int] = {"full": errno.ENOSPC, "broken": errno.EIO, "forbidden": errno.EACCES, "read-only": errno.EROFS}

RARE = ("replace", "unlink", "mkdir")
CAUSES = {"short": "the disk accepts no data", "lying": "the data read back differs from the data written"}


class Disk:
    """Records the calls to the operating system, and makes one of them fail, or it and all later ones."""

    def __init__(self, fails_at: int = -1, kind: str = "full", stays: bool = False) -> None:
        self.fails_at, self.kind, self.stays = fails_at, kind, stays
        self.calls: list[str] = []

    def fails(self) -> bool:
        number = len(self.calls) - 1
        return number == self.fails_at or (self.stays and 0 <= self.fails_at < number)

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.calls.append(name)
            if not self.fails():
                return call(*args, **options)
            if self.kind in ("short", "lying"):
                if name != "write":
                    return call(*args, **options)
                data = bytearray(args[1])
                if self.kind == "short":  # writes half; the caller then writes the rest
                    return call(args[0], data[: len(data) // 2])
                data[len(data) // 2] ^= 16  # reports success
                return call(args[0], data)
            if name == "close":
                call(*args, **options)  # the file is closed nevertheless
            raise OSError(KINDS[self.kind], os.strerror(KINDS[self.kind]))

        return wrapped

    @contextmanager
    def under(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self.wrap(name, getattr(os, name)))
            yield


class Saved:
    """A run whose newest checkpoint is of step 6, and the weights of step 9, to be saved."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        train(tiny_config(folder, "base", steps=6))
        train(tiny_config(folder, "after", steps=9))
        self.after, _ = newest_good(folder / "after")
        self.old, self.new = digest(newest_good(self.base)[0]), digest(self.after)

    def saver(self, run: Path, notes: list[str]) -> Saver:
        """Return the saver as it is in the training loop just before a save."""
        folder = RunFolder.existing(run)
        folder.log({"step": 9})
        checkpoint = self.after
        return Saver(folder, replace(checkpoint.config, keep=1), checkpoint.tokenizer, checkpoint.fingerprint,
                     checkpoint.progress, checkpoint.tensors, notes.append)  # fmt: skip

    def states(self, run: Path) -> tuple[str, str]:
        """Return whether the newest checkpoint, and the model file, are "old" or "new"."""
        found, damaged = newest_good(run)
        assert not damaged  # a file with its final name is intact
        model = load_model(run)[0].flat.tobytes()
        weights: dict[str, Parameters] = {"old": newest_good(self.base)[0].tensors[PARTS[0]],
                                          "new": self.after.tensors[PARTS[0]]}  # fmt: skip
        which = next(name for name, parameters in weights.items() if parameters.flat.tobytes() == model)
        return {self.old: "old", self.new: "new"}[digest(found)], which


@pytest.mark.parametrize("every", [101, pytest.param(1, marks=pytest.mark.slow)])
def test_every_call_fails_in_turn(tmp_path: Path, every: int) -> None:
    """With `every` > 1, only every n-th fault; the slow test covers the others."""
    saved = Saved(tmp_path)
    run, notes = tmp_path / "run", list[str]()

    def attempt(disk: Disk) -> Saver:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(saved.base, run)
        notes.clear()
        saver = saved.saver(run, notes)
        with disk.under():
            saver.save()
        return saver

    counting = Disk()
    saver = attempt(counting)
    saver.folder.close()
    assert saved.states(run) == ("new", "new")
    assert {"open", "write", "fsync", "read", "replace", "unlink"} <= set(counting.calls)
    tried = 0
    for kind in (*KINDS, "short", "lying"):
        for stays in (False, True):
            for number, name in enumerate(counting.calls):
                if kind in ("short", "lying") and name != "write":
                    continue
                saver = attempt(Disk(number, kind, stays))
                tried += 1
                where = f"{kind} {name} (call {number}, {'and all later ones' if stays else 'once'})"
                checkpoint, model = saved.states(run)
                if saver.problem:
                    cause = os.strerror(KINDS[kind]) if kind in KINDS else CAUSES[kind]
                    assert cause in saver.problem, where
                    assert cause in notes[0], where
                    assert (checkpoint, model) != ("old", "new"), where  # the checkpoint comes first
                else:
                    assert (checkpoint, model) == ("new", "new"), where
                for line in read_metrics(run):
                    assert "step" in line, where
                saver.save()  # the disk works again
                assert not saver.problem, where
                assert saved.states(run) == ("new", "new"), where
                assert read_metrics(run)[-1]["step"] == 9, where
                saver.folder.close()
                RunFolder.existing(run).close()  # this removes leftovers
                assert not list(run.rglob(".*.part")), where
    print(f"{tried} faults")
    assert tried > 2000 / every


def test_every_call_fails_in_turn_while_damaged_metrics_are_mended(tmp_path: Path) -> None:
    """No intact line is lost: it stays in metrics.jsonl, or the whole file is aside, or both."""
    run = tmp_path / "run"
    lines = [b'{"step": %d}\n' % step for step in range(9)]
    lines[3] = b"{\n"
    whole, mended = b"".join(lines), b"".join(lines[:3] + lines[4:])

    def attempt(disk: Disk) -> str:
        shutil.rmtree(run, ignore_errors=True)
        new = RunFolder(str(run))
        new.create({})
        new.close()
        (run / "metrics.jsonl").write_bytes(whole)
        folder = RunFolder.existing(run)
        try:
            with disk.under():
                folder.cut_back(8)
        except CheckpointError as error:
            return str(error)
        finally:
            folder.close()
        return ""

    counting = Disk()
    assert attempt(counting) == ""
    assert {"open", "write", "fsync", "replace", "ftruncate"} <= set(counting.calls)
    for kind in (*KINDS, "short", "lying"):
        for stays in (False, True):
            for number, name in enumerate(counting.calls):
                error = attempt(Disk(number, kind, stays))
                where = f"{kind} {name} (call {number}, {'and all later ones' if stays else 'once'})"
                assert "\n" not in error, where
                aside = list(run.glob("metrics.damaged-*.jsonl"))
                assert all(path.read_bytes() == whole for path in aside), where
                assert aside or (run / "metrics.jsonl").read_bytes() == whole, where
                folder = RunFolder.existing(run)  # the disk works again
                folder.cut_back(8)
                folder.close()
                assert not list(run.rglob(".*.part")), where
                if not error and kind != "lying":  # single lines are not read back
                    assert (run / "metrics.jsonl").read_bytes() == mended, where


# ------------------------------------------------------------------------------------------------------ a run continues


def failing_saves(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> None:
    """Make the disk full whenever `when` returns True."""
    fsync = os.fsync

    def full(handle: int) -> None:
        if when():
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    full = [False]
    failing_saves(monkeypatch, lambda: full[0])

    class Reporter(Acting):
        def step(self, record: Any) -> None:
            full[0] = record["step"] in (3, 4, 5, 6)

    reporter = Reporter()
    run = train(tiny_config(tmp_path), reporter)
    assert result(run.folder) == result(whole.folder)
    assert [note.split(" is ")[0] for note in reporter.notes] == ["step 3", "step 4", "step 6", "step 9"]
    assert "No space left on device. Training continues; the next save tries again." in reporter.notes[0]
    assert reporter.notes[1].startswith("step 4 is the best so far, but is not kept as such: Cannot write ")
    assert reporter.notes[3] == "step 9 is saved; writing works again."


def test_a_model_that_cannot_be_written_does_not_keep_old_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what was saved and what was not, and the last save still decides how the run ends."""
    real, full = saving.save_model, [True]

    def save_model(*args: Any) -> None:
        if full[0]:
            raise CheckpointError("Cannot write model.safetensors: No space left on device.")
        real(*args)

    monkeypatch.setattr(saving, "save_model", save_model)
    reporter = Acting()
    with pytest.raises(StoppedRun, match="The run reached step 10, but the last save failed: Cannot write model"):
        train(tiny_config(tmp_path), reporter)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [10, 9]
    assert reporter.notes[1] == (
        "step 3 is saved, except for model.safetensors: Cannot write model.safetensors: No space left on device. "
        "Training continues; the next save tries again."
    )
    full[0] = False
    whole, run = train(tiny_config(tmp_path, "whole")), train(stored_config(tmp_path / "run"))
    assert result(run.folder) == result(whole.folder)


def test_a_last_save_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    full = [False]
    failing_saves(monkeypatch, lambda: full[0])
    reporter = Acting(7, lambda: full.__setitem__(0, True))
    message = r"The run reached step 10, but the last save failed: Cannot write .*: No space left"
    with pytest.raises(StoppedRun, match=message):
        train(tiny_config(tmp_path), reporter)
    full[0] = False
    assert newest_good(tmp_path / "run")[0].progress.step == 6
    train(stored_config(tmp_path / "run"))
    assert result(tmp_path / "run") == result(whole.folder)


def test_a_folder_that_is_deleted(tmp_path: Path) -> None:
    reporter = Acting(4, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(StoppedRun, match="No such file or directory"):
        train(tiny_config(tmp_path), reporter)
    assert not (tmp_path / "run").exists()
    assert len(reporter.notes) >= 3  # steps 6 and 9, and the end
    whole = train(tiny_config(tmp_path, "whole"))

    class Reporter(Acting):
        def step(self, record: Any) -> None:
            if record["step"] == 4:
                shutil.rmtree(tmp_path / "again")
            if record["step"] == 7:
                (tmp_path / "again").mkdir()

    run = train(tiny_config(tmp_path, "again"), Reporter())
    assert result(run.folder) == result(whole.folder)


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_saves(monkeypatch, lambda: True)
    reporter = Acting()
    with pytest.raises(StoppedRun, match="the last save failed"):
        train(tiny_config(tmp_path), reporter)
    assert reporter.notes[0].startswith("step 0 is not saved")


def test_a_file_size_limit_of_the_system(tmp_path: Path) -> None:
    """The system refuses to let a file grow: exit code 1, one sentence, no traceback."""
    tiny_config(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # more than a model, less than a checkpoint

    done = subprocess.run(
        [sys.executable, "-m", "bevia_fast", "train", "--data", "text.txt", "--ctx", "8", "--dim", "8", "--heads", "2",
         "--layers", "2", "--steps", "5", "--eval-batches", "1", "--backend", "numpy", "--out", "run"],
        cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "step 0 is not saved: Cannot write run/checkpoints/step-00000000.safetensors: File too large." in done.stdout
    assert done.stderr.startswith("bevia-fast: error: The run reached step 5, but the last save failed:")
    assert done.stderr.count("\n") == 1
    assert checkpoints(tmp_path / "run") == []
