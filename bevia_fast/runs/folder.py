"""The folder of a run: its files, the lock on it, and its metrics."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, reason
from ..files import (
    BEST,
    BINARY,
    CHECKPOINTS,
    CHUNK,
    CONFIG,
    FILM,
    HUB,
    LOSS,
    METRICS,
    MODEL,
    OPTIONS,
    RUNS,
    SAMPLE,
    flush,
    is_folder,
    mode,
    reading,
    refuse_nul,
    refuse_special,
    sync_folder,
    write_all,
    write_atomically,
    writing,
)
from ..kernels.lock import take_lock
from ..naming import option, resuming
from ..reporter import Record
from .metrics import read_line, up_to

RUN_FILES = (MODEL, BEST, OPTIONS, CONFIG, METRICS, CHECKPOINTS)
_WRITTEN = "|".join(map(re.escape, (MODEL, BEST, OPTIONS, LOSS, SAMPLE, *HUB)))
_NUMBERED = r"metrics\.damaged-\d+\.jsonl|(?:step|best)-\d+\.safetensors"
LEFTOVER = re.compile(rf"\.({_WRITTEN}|{_NUMBERED})\.\d+\.part")  # see `files.write_atomically`


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a training process that was killed.

    The caller must hold the lock on the run's folder, because otherwise the files may still be in use. Files of other
    commands, which take no lock, and files of the user are not removed.
    """
    with contextlib.suppress(OSError):
        found = [path for path in folder.iterdir() if LEFTOVER.fullmatch(path.name)]
        for path in found:
            with contextlib.suppress(OSError):
                os.unlink(path)


class RunFolder:
    """The folder that a training run writes to, locked while it does. Nothing is created before `create`.

    The lock is on metrics.jsonl, because that file is never replaced by another.
    """

    def __init__(self, out: str = "") -> None:
        """Choose the folder of a new run: `out`, or if that is empty, the next free one of runs/1, runs/2, ...

        Raises CheckpointError if `out` is a file, or contains a run or a file that a run would overwrite.
        """
        self.path = Path(out)
        self._numbered = not out
        self._handle: int | None = None
        self._end = 0  # bytes of metrics.jsonl that are complete lines
        self._waiting: list[bytes] = []  # lines that could not be written yet
        if out:
            _refuse_existing(self.path)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Lock the folder of a run to resume. Raises CheckpointError if another process is training in it."""
        folder = cls()
        folder.path = path
        with writing(path / METRICS):
            folder._open(os.O_CREAT)
        for place in (path, path / CHECKPOINTS, path / FILM):
            remove_leftovers(place)
        return folder

    def create(self, config: dict[str, Any]) -> Path:
        """Create the folder, write options.json and open metrics.jsonl. Two runs never get the same folder.

        Raises CheckpointError; the folder then contains no run.
        """
        if self._numbered:
            self.path = _next_free(Path(RUNS))
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                file = open(self.path / OPTIONS, "x", encoding="utf-8")  # noqa: SIM115  # closed below
            except FileExistsError:
                raise _already_a_run(self.path) from None
            try:
                with file:
                    file.write(config_text(config))
                self._open(os.O_CREAT)
                (self.path / CHECKPOINTS).mkdir(exist_ok=True)
                with contextlib.suppress(OSError):  # the folder above may not be readable
                    sync_folder(self.path.parent)
            except BaseException:
                self.close()
                for name in (METRICS, OPTIONS):  # options.json last: it keeps other runs out until then
                    with contextlib.suppress(OSError):
                        os.unlink(self.path / name)
                raise
        return self.path

    def _open(self, flags: int = 0) -> None:
        if (self.path / METRICS).is_symlink():  # its target may be any file of the user
            raise CheckpointError(f"{self.path / METRICS} is a symbolic link; a run writes only into its own folder.")
        flags |= getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.path / METRICS, os.O_RDWR | os.O_APPEND | flags | BINARY, 0o666)
        try:
            refuse_special(self.path / METRICS)
            if not take_lock(handle):
                raise CheckpointError(f"Another process is training in {self.path}.")
            self._end = os.fstat(handle).st_size
        except BaseException:
            os.close(handle)
            if flags & os.O_EXCL:  # just created
                with contextlib.suppress(OSError):
                    os.unlink(self.path / METRICS)
            raise
        self._handle = handle

    def cut_back(self, step: int) -> Path | None:
        """Drop the lines of metrics.jsonl that are after `step`, incomplete or damaged.

        If a line up to `step` is damaged, the whole file is first copied to a new name, which is returned. Raises
        CheckpointError if that fails; nothing is changed then.
        """
        assert self._handle is not None
        path, aside = self.path / METRICS, None
        with writing(path):
            content = path.read_bytes()
            lines, damaged = up_to(content, step)
            if damaged:
                aside = next(new for new in map(self._aside, itertools.count(1)) if not os.path.lexists(new))
                write_atomically(aside, content)
            self._end = 0
            while lines and content.startswith(lines[0], self._end):
                self._end += len(lines.pop(0))
            os.ftruncate(self._handle, self._end)
            self._waiting = lines  # behind the first damage
            self._write_waiting()
            flush(self._handle)
        return aside

    def _aside(self, number: int) -> Path:
        return self.path / f"{Path(METRICS).stem}.damaged-{number}.jsonl"

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl. A line that cannot be written now is written with a later one."""
        # NaN becomes null, because it is not valid JSON
        record = {name: _finite(value) for name, value in record.items()}
        self._waiting.append(json.dumps(record, allow_nan=False).encode() + b"\n")
        with contextlib.suppress(OSError):
            self._write_waiting()

    def _write_waiting(self) -> None:
        assert self._handle is not None
        while self._waiting:
            line = self._waiting[0]
            if os.fstat(self._handle).st_size != self._end:  # part of a line, from a failed attempt
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
        """Flush all lines to disk. Raises CheckpointError if that fails; the next call tries again."""
        with writing(self.path / METRICS):
            self._restore_metrics()
            self._write_waiting()
            assert self._handle is not None
            flush(self._handle)

    def _restore_metrics(self) -> None:
        """If metrics.jsonl was removed or replaced, write it again with the lines of the old file, which is still open.

        This happens when the folder is deleted or moved during a run, and created again.
        """
        assert self._handle is not None
        old, end, path = self._handle, self._end, self.path / METRICS
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(old)):
                return
        self._open(os.O_CREAT | os.O_EXCL)
        try:
            os.lseek(old, 0, os.SEEK_SET)
            while self._end < end:  # the rest may be part of a line
                chunk = os.read(old, min(CHUNK, end - self._end))
                if not chunk:
                    raise OSError("earlier lines are lost")
                write_all(self._handle, chunk)
                self._end += len(chunk)
        except BaseException:  # the next attempt starts over
            with contextlib.suppress(OSError):
                os.unlink(path)
            self.close()
            self._handle, self._end = old, end
            raise
        os.close(old)

    def close(self) -> None:
        """Release the lock on the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def config_text(config: dict[str, Any]) -> str:
    """Return the contents of options.json."""
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


def _refuse_existing(path: Path) -> None:
    refuse_nul(path, "a folder")
    with writing(path):
        if mode(path) and not is_folder(path):
            raise CheckpointError(f"{path} is not a folder; choose another one with {option('out')}.")
        if any(mode(path / name) for name in RUN_FILES):
            raise _already_a_run(path)
        for name in (LOSS, SAMPLE, *HUB):  # the user's own files, because there is no run
            if mode(path / name):
                raise CheckpointError(
                    f"{path} contains a file {name}, which the run would overwrite; choose another folder with "
                    f"{option('out')}."
                )
        if mode(path / FILM):
            raise CheckpointError(
                f"{path} contains {FILM}, into which the run would write; choose another folder with {option('out')}."
            )


def _already_a_run(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} already contains a run; choose another folder with {option('out')}, or resume it: {resuming(path)}"
    )


def read_metrics(folder: Path) -> list[Record]:
    """Return the records of metrics.jsonl, without a last line that is incomplete.

    Raises CheckpointError if the file is missing or a line is damaged.
    """
    path = folder / METRICS
    with reading(path):
        refuse_special(path)
        *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(read_line(line))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not a metrics file: line {number}: {reason(error)}.") from None
    return records
