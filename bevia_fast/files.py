"""Files that are whole or not there: the folder of a run, and how anything is written into it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CheckpointError

MODEL, CONFIG, METRICS, LOSS, SAMPLE = "model.safetensors", "config.json", "metrics.jsonl", "loss.png", "sample.txt"
RUN_FILES = (MODEL, CONFIG, METRICS)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file such that `path` is at every moment the old one or the new one, also after a loss of power.

    Raises CheckpointError if the disk does not take it; the old file is then still there.
    """
    with writing(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _allow_reading(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def _allow_reading(path: str) -> None:
    """A temporary file is the user's alone; give it the rights that a new file has."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def _sync_folder(folder: Path) -> None:
    """Make the new name last. Windows cannot open a folder, and needs no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RunFolder:
    """The folder that a training run writes into. Nothing is made before `create`."""

    def __init__(self, out: str = "") -> None:
        """Raises CheckpointError if `out` is a file or already holds a run."""
        self.path = Path(out) if out else None
        self._metrics: Any = None
        if self.path is not None:
            _refuse_taken(self.path)

    def create(self, config: dict[str, Any]) -> Path:
        """Make the folder, write config.json, open metrics.jsonl. Two runs never get the same folder."""
        path = self.path if self.path is not None else _next_free(Path("runs"))
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            try:
                with open(path / CONFIG, "x", encoding="utf-8") as file:
                    file.write(json.dumps(config, indent=2) + "\n")
            except FileExistsError:
                raise _taken(path) from None
            self._metrics = open(path / METRICS, "ab", buffering=0)  # noqa: SIM115  # closed by close()
        self.path = path
        return path

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl. It is there as a whole when this returns, or not at all."""
        assert self.path is not None
        line = json.dumps(record).encode() + b"\n"
        with writing(self.path / METRICS):
            end = self._metrics.seek(0, os.SEEK_END)
            try:
                if self._metrics.write(line) != len(line):
                    raise OSError("the disk took a part of a line only")
            except OSError:
                with contextlib.suppress(OSError):
                    self._metrics.truncate(end)
                raise

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()


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
    if "\0" in str(path):
        raise CheckpointError("The name of a folder cannot have a NUL character in it.")
    with writing(path):
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{path} is not a folder; choose another one with --out.")
        if any((path / name).exists() for name in RUN_FILES):
            raise _taken(path)


def _taken(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} already holds a run; choose another folder with --out.")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl. Raises CheckpointError if it is not there or not such a file."""
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a file of metrics: {error}.") from None
