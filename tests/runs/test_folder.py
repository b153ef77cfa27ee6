"""The folder of a run: its metrics, its lock and its leftovers."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.errors import CheckpointError
from bevia_fast.files import CONFIG, LOSS, MODEL, SAMPLE
from bevia_fast.runs import folder as run_folder
from bevia_fast.runs.folder import RunFolder, read_metrics


def test_metrics_hold_complete_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    path = folder.create({})
    folder.log({"step": 1})

    write, room = os.write, [3]

    def full(handle: int, data: Any) -> int:
        """A disk with room for three more bytes."""
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken, room[0] = write(handle, data[: room[0]]), 0
        return taken

    monkeypatch.setattr(os, "write", full)
    folder.log({"step": 2})
    assert (path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n'
    with pytest.raises(CheckpointError, match="No space left"):
        folder.sync()
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    room[0] = 3
    folder.log({"step": 3})  # now even the partial line cannot be removed
    assert (path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"s'
    assert [record["step"] for record in read_metrics(path)] == [1]
    monkeypatch.undo()
    folder.log({"step": 4, "loss": math.nan})
    folder.sync()
    folder.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "loss": None}]


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    path = folder.create({}) / "metrics.jsonl"
    whole = b"".join(b'{"step": %d}\n' % step for step in range(5))
    for content, kept in (
        (whole, whole[:36]), (whole[:36], whole[:36]), (whole[:30], whole[:24]), (b"", b""), (b"{", b""),
        (whole[:24] + b"\xff\n" + whole[24:], whole[:24]), (whole[:12] + b"[1]\n", whole[:12]),
        (whole[:12] + b"[" * 9999 + b"\n", whole[:12]),
    ):  # fmt: skip
        path.write_bytes(content)
        folder.cut_back(2)
        assert path.read_bytes() == kept
    folder.log({"step": 3})
    assert path.read_bytes() == kept + b'{"step": 3}\n'
    folder.close()


def test_the_lock_is_released_when_its_process_exits(tmp_path: Path) -> None:
    first = RunFolder(str(tmp_path / "run"))
    path = first.create({})
    with pytest.raises(CheckpointError, match="Another process is training in"):
        RunFolder.existing(path)
    first.close()
    code = (
        "import sys, pathlib; from bevia_fast.runs.folder import RunFolder\n"
        "folder = RunFolder.existing(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        assert it.stdout.readline() == b"locked\n"
        with pytest.raises(CheckpointError, match="Another process is training in"):
            RunFolder.existing(path)
        it.kill()
        it.wait()
        RunFolder.existing(path).close()


def test_a_folder_that_is_created_again_gets_all_lines(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    path = folder.create({})
    folder.log({"step": 1})
    shutil.rmtree(path)
    folder.log({"step": 2})
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: No such file or directory"):
        folder.sync()
    path.mkdir()
    folder.sync()
    folder.log({"step": 3})
    folder.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


@pytest.mark.parametrize("call", ["write", "open", "mkdir"])
def test_a_run_that_cannot_start_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The disk is full at one of the steps; another attempt in the same folder starts over."""
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr(run_folder, "config_text", full)
        elif call == "open":
            patch.setattr(run_folder, "take_lock", full)
        else:
            mkdir = os.mkdir
            patch.setattr(os, "mkdir", lambda path, *rest: (full if path.name == "checkpoints" else mkdir)(path, *rest))
        folder = RunFolder(str(tmp_path / "run"))
        with pytest.raises(CheckpointError, match="No space left on device"):
            folder.create({})
        folder.close()
    assert list((tmp_path / "run").iterdir()) == []
    RunFolder(str(tmp_path / "run")).create({"who": 2})


def test_only_leftovers_of_training_are_removed_even_if_one_of_them_cannot_be(tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder(str(run))
    folder.create({})
    folder.close()
    left = [f".{name}.4711.part" for name in (MODEL, CONFIG, LOSS, SAMPLE)]
    left += ["checkpoints/.step-00000012.safetensors.1.part"]
    others = [".attention.png.4711.part", ".mine.part", f".{MODEL}.part", "checkpoints/.step-1.part"]
    for name in left + others:
        (run / name).write_text("")
    (run / f".{MODEL}.1.part").mkdir()  # a folder cannot be unlinked
    RunFolder.existing(run).close()
    found = {str(path.relative_to(run)) for path in run.rglob(".*")}
    assert found == {*others, f".{MODEL}.1.part"}


@pytest.mark.parametrize("call", ["write", "read", "lseek", "lock"])
def test_a_folder_that_is_created_again_on_a_full_disk_gets_all_lines_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    path = folder.create({})
    folder.log({"step": 1})
    with monkeypatch.context() as patch:  # a partial line that cannot be removed
        write = os.write
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:3]) if len(data) > 3 else full())
        patch.setattr(os, "ftruncate", full)
        folder.log({"step": 2})
    shutil.rmtree(path)
    path.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(*((run_folder, "take_lock") if call == "lock" else (os, call)), full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            folder.sync()
    folder.log({"step": 3})
    folder.sync()
    folder.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first, second = (RunFolder(str(tmp_path / "run")) for _ in range(2))
    first.create({"who": 1})
    with pytest.raises(CheckpointError, match="already contains a run"):
        second.create({"who": 2})
    first.close()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"who": 1}


def test_impossible_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is not a folder"):
        RunFolder(str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="NUL"):
        RunFolder("a\0b")
    for bad in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(CheckpointError, match="Cannot write"):
            RunFolder(str(bad)).create({})


@pytest.mark.parametrize("name", [LOSS, SAMPLE])
def test_files_of_the_user_are_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=f"contains a file {name}, which the run would overwrite"):
        RunFolder(str(tmp_path))


def test_files_that_are_not_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Cannot read"):
        read_metrics(tmp_path)
    for content in ("{nonsense\n", "[1]\n", "[" * 9999 + "\n", "\udc80\n"):
        (tmp_path / "metrics.jsonl").write_text(content, "utf-8", "surrogateescape")
        with pytest.raises(CheckpointError, match="is not a metrics file: "):
            read_metrics(tmp_path)
