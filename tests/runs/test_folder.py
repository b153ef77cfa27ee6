"""The folder of a run: its metrics, its lock and its leftovers."""

from __future__ import annotations

import contextlib
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
from bevia_fast.files import HUB, LOSS, MODEL, OPTIONS, SAMPLE
from bevia_fast.runs import folder as run_folder
from bevia_fast.runs.folder import RunFolder, read_metrics
from bevia_fast.runs.metrics import VALUES


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
    nothing = dict.fromkeys(VALUES)
    assert read_metrics(path) == [{"step": step, **nothing} for step in (1, 2, 3, 4)]
    assert path.joinpath("metrics.jsonl").read_bytes().endswith(b'{"step": 4, "loss": null}\n')


LINES = [b'{"step": %d, "loss": 1.5}\n' % step for step in range(6)]


def new_run(folder: Path) -> Path:
    """Return the folder of a run that no process is training in."""
    new = RunFolder(str(folder / "run"))
    new.create({})
    new.close()
    return new.path


def cut(path: Path, content: bytes, step: int) -> tuple[bytes, bytes]:
    """Return what `cut_back` keeps of metrics.jsonl, and what it sets aside."""
    folder = RunFolder.existing(path)
    (path / "metrics.jsonl").write_bytes(content)
    aside = folder.cut_back(step)
    folder.log({"step": step + 1})
    folder.close()
    kept = (path / "metrics.jsonl").read_bytes()
    assert kept.endswith(b'{"step": %d}\n' % (step + 1))
    return kept[: kept.rindex(b"{")], aside.read_bytes() if aside else b""


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    """What an interruption leaves behind is no damage."""
    path, whole = new_run(tmp_path), b"".join(LINES)
    to_2 = b"".join(LINES[:3])
    for content, kept in (
        (whole, to_2), (to_2, to_2), (whole[:60], b"".join(LINES[:2])), (b"", b""), (b"{", b""),
        (to_2 + LINES[3][:9], to_2), (to_2 + b"\0" * 99 + b"\n", to_2), (to_2 + LINES[3] + b"\xff\n" + LINES[5], to_2),
    ):  # fmt: skip
        assert cut(path, content, 2) == (kept, b"")


WRONG = (b"\xff", b"[1]", b"[" * 9999, b"null", b"", b"{}", b'{"step": -1}', b'{"step": 1.0}', b'{"step": true}',
         b'{"step": 1, "loss": NaN}', b'{"step": 1, "loss": 1e999}', b'{"step": 1, "loss": "1"}',
         b'{"step": 1, "x": []}',
         b'{"step": 1, "lr": true}', b'{"step": 1, "loss": 1' + b"0" * 400 + b"}", b'{"step": 1' + b"0" * 5000 + b"}",
         b'{"step": 1, "loss": 1.5', b'{"step: 1, "loss": 1.5}', b'{"step": 1, "x": "' + b"x" * 2000 + b'"}',
         b" " * (1 << 17) + b'{"step": 1}')  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_damaged_line_costs_one_line(tmp_path: Path, wrong: bytes, place: int) -> None:
    path = new_run(tmp_path)
    content = b"".join([*LINES[:place], wrong + b"\n", *LINES[place + 1 :]])
    kept = b"".join([*LINES[:place], *LINES[place + 1 : 3]])
    assert cut(path, content, 2) == (kept, content)
    (path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"is not a metrics file: line {place + 1}: "):
        read_metrics(path)
    assert cut(path, kept, 2) == (kept, b"")  # nothing is set aside twice
    assert len(list(path.glob("metrics.damaged-*.jsonl"))) == 1


@pytest.mark.parametrize("step", [0, 1, 4, 5, 99, 1 << 49])
def test_one_wrong_step_costs_one_line(tmp_path: Path, step: int) -> None:
    """The line can be read, but a flipped bit changed its step."""
    path = new_run(tmp_path)
    lines = [*LINES[:2], b'{"step": %d, "loss": 1.5}\n' % step, *LINES[3:]]
    content = b"".join(lines)
    kept, aside = cut(path, content, 5)
    assert aside == content
    assert len(kept.splitlines()) == 5
    steps = [json.loads(line)["step"] for line in kept.splitlines()]
    assert steps == sorted(set(steps))


def test_damaged_metrics_stay_as_they_are_if_they_cannot_be_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_run(tmp_path)
    folder = RunFolder.existing(path)
    content = LINES[0] + b"?\n" + LINES[2]
    (path / "metrics.jsonl").write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            folder.cut_back(2)
    assert (path / "metrics.jsonl").read_bytes() == content
    folder.close()


def test_metrics_that_are_a_symbolic_link_are_refused(tmp_path: Path) -> None:
    """Their target could be any file of the user."""
    path = new_run(tmp_path)
    (path / "metrics.jsonl").unlink()
    (tmp_path / "mine").write_text("mine")
    for target in (tmp_path / "mine", tmp_path / "missing"):
        (path / "metrics.jsonl").symlink_to(target)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl is a symbolic link; a run writes only into its own"):
            RunFolder.existing(path)
        (path / "metrics.jsonl").unlink()
    new = tmp_path / "new"
    new.mkdir()
    (new / "metrics.jsonl").symlink_to(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="is a symbolic link"):
        RunFolder(str(new)).create({})
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "missing").exists()


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
    before = open_files()
    folder.sync()
    assert len(open_files()) == len(before)
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
    left = [f".{name}.4711.part" for name in (MODEL, OPTIONS, LOSS, SAMPLE, *HUB)]
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
        before = open_files()
        with pytest.raises(CheckpointError, match="No space left on device"):
            folder.sync()
        assert open_files() == before
    folder.log({"step": 3})
    folder.sync()
    folder.close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


def open_files() -> list[int]:
    """Return the descriptors of this process that are open, as far as a few hundred."""
    found = []
    for number in range(300):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first, second = (RunFolder(str(tmp_path / "run")) for _ in range(2))
    first.create({"who": 1})
    with pytest.raises(CheckpointError, match="already contains a run"):
        second.create({"who": 2})
    first.close()
    assert json.loads((tmp_path / "run" / "options.json").read_text()) == {"who": 1}


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
