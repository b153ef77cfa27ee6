"""The folder of a run: what lies in it, who may write into it, and its lines of metrics."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..files import (
    BINARY,
    CHUNK,
    CONFIG,
    LOSS,
    METRICS,
    MODEL,
    SAMPLE,
    reading,
    refuse_nul,
    refuse_special,
    write_all,
    writing,
)
from ..kernels.lock import take_lock

CHECKPOINTS = "checkpoints"  # a folder
RUN_FILES = (MODEL, CONFIG, METRICS, CHECKPOINTS)
_WRITTEN = "|".join(map(re.escape, (MODEL, CONFIG, LOSS, SAMPLE)))
LEFTOVER = re.compile(rf"\.({_WRITTEN}|step-\d+\.safetensors)\.\d+\.part")  # see write_atomically


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a training process that was killed. Only with the lock, or they may be its own
    still. Those of other commands, which need no lock, stay, and so do other people's."""
    with contextlib.suppress(OSError):
        found = [path for path in folder.iterdir() if LEFTOVER.fullmatch(path.name)]
        for path in found:
            with contextlib.suppress(OSError):
                os.unlink(path)


class RunFolder:
    """The folder that a training run writes into, locked while it does. Nothing is made before `create`.

    The lock is on metrics.jsonl, the one file that is never replaced by another.
    """

    def __init__(self, out: str = "") -> None:
        """For a new run. Raises CheckpointError if `out` is a file, or holds a run or a file that one writes."""
        self.path = Path(out)
        self._numbered = not out
        self._handle: int | None = None
        self._end = 0  # how much of metrics.jsonl is whole lines
        self._waiting: list[bytes] = []  # lines that the disk did not take yet
        if out:
            _refuse_taken(self.path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Lock the folder of a run that is to go on. Raises CheckpointError if another process writes into it."""
        folder = cls()
        folder.path = path
        with writing(path / METRICS):
            folder._open(os.O_CREAT)
        for place in (path, path / CHECKPOINTS):
            remove_leftovers(place)
        return folder

    def create(self, config: dict[str, Any]) -> Path:
        """Make the folder, write config.json, open metrics.jsonl. Two runs never get the same folder.

        Raises CheckpointError; the folder then holds no run.
        """
        if self._numbered:
            self.path = _next_free(Path("runs"))
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                file = open(self.path / CONFIG, "x", encoding="utf-8")  # noqa: SIM115  # closed below
            except FileExistsError:
                raise _taken(self.path) from None
            try:
                with file:
                    file.write(config_text(config))
                self._open(os.O_CREAT)
                (self.path / CHECKPOINTS).mkdir(exist_ok=True)
            except BaseException:
                self.close()
                for name in (METRICS, CONFIG):  # in this order, for until the last one nobody else may begin here
                    with contextlib.suppress(OSError):
                        os.unlink(self.path / name)
                raise
        return self.path

    def _open(self, flags: int = 0) -> None:
        handle = os.open(self.path / METRICS, os.O_RDWR | os.O_APPEND | flags | BINARY, 0o666)
        try:
            refuse_special(self.path / METRICS)
            if not take_lock(handle):
                raise CheckpointError(f"Another process is training in {self.path}.")
            self._end = os.fstat(handle).st_size
        except BaseException:
            os.close(handle)
            if flags & os.O_EXCL:  # made just now
                with contextlib.suppress(OSError):
                    os.unlink(self.path / METRICS)
            raise
        self._handle = handle

    def cut_back(self, step: int) -> None:
        """Take the lines after `step`, and whatever is no whole line, off the end of metrics.jsonl."""
        assert self._handle is not None
        keep = 0
        with writing(self.path / METRICS):
            for line in (self.path / METRICS).read_bytes().splitlines(keepends=True):
                try:
                    if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                        break
                except (ValueError, TypeError, KeyError, RecursionError):
                    break
                keep += len(line)
            os.ftruncate(self._handle, keep)
            os.fsync(self._handle)
        self._end = keep

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl. One that the disk does not take now is kept, and written with a later one."""
        # a strict reader knows no NaN
        record = {name: _finite(value) for name, value in record.items()}
        self._waiting.append(json.dumps(record, allow_nan=False).encode() + b"\n")
        with contextlib.suppress(OSError):
            self._write_waiting()

    def _write_waiting(self) -> None:
        assert self._handle is not None
        while self._waiting:
            line = self._waiting[0]
            if os.fstat(self._handle).st_size != self._end:  # a part of a line, from an attempt that failed
                os.ftruncate(self._handle, self._end)
            try:
                write_all(self._handle, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._handle, self._end)
                raise
            self._end += len(line)
            del self._waiting[0]

    def sync(self) -> None:
        """Bring all lines to the disk. Raises CheckpointError if it does not take them; they are kept."""
        with writing(self.path / METRICS):
            self._follow()
            self._write_waiting()
            assert self._handle is not None
            os.fsync(self._handle)

    def _follow(self) -> None:
        """Where the folder was taken away and is there again, begin metrics.jsonl with the lines of the old one."""
        assert self._handle is not None
        old, end, path = self._handle, self._end, self.path / METRICS
        if path.exists() and os.path.samestat(os.stat(path), os.fstat(old)):
            return
        self._open(os.O_CREAT | os.O_EXCL)
        try:
            os.lseek(old, 0, os.SEEK_SET)
            while self._end < end:  # there may be a part of a line behind it
                chunk = os.read(old, min(CHUNK, end - self._end))
                if not chunk:
                    raise OSError("what was written is there no more")
                write_all(self._handle, chunk)
                self._end += len(chunk)
        except BaseException:  # the next attempt begins anew
            with contextlib.suppress(OSError):
                os.unlink(path)
            self.close()
            self._handle, self._end = old, end
            raise
        os.close(old)

    def close(self) -> None:
        """Give the folder free."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_text(config: dict[str, Any]) -> str:
    """What is in config.json."""
    return json.dumps(config, indent=2) + "\n"


def _next_free(parent: Path) -> Path:
    for number in itertools.count(1):
        path = parent / str(number)
        with writing(path):
            parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    raise AssertionError("unreachable")


def _refuse_taken(path: Path) -> None:
    refuse_nul(path, "a folder")
    with writing(path):
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{path} is not a folder; choose another one with --out.")
        if any((path / name).exists() for name in RUN_FILES):
            raise _taken(path)
        for name in (LOSS, SAMPLE):  # somebody's own, for there is no run
            if (path / name).exists():
                raise CheckpointError(
                    f"{path} has a file {name}, which the run would write over; choose another folder with --out."
                )


def _taken(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} already holds a run; choose another folder with --out, or go on with it: --resume {path}."
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, but for a last line that is being written. Raises CheckpointError if it is not
    there or not such a file."""
    path = folder / METRICS
    with reading(path):
        refuse_special(path)
        whole = path.read_bytes().rpartition(b"\n")[0]
    try:
        records = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a file of metrics: {error}.") from None
    if not all(isinstance(record, dict) for record in records):
        raise CheckpointError(f"{path} is not a file of metrics: a line is no object.")
    return records
