"""Reading and writing files: a written file is whole or not there, and an error of the disk is one sentence."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import CheckpointError, UserError

# What a run writes, by name: whoever reads a folder of text has to leave out sample.txt.
MODEL, CONFIG, METRICS, LOSS, SAMPLE = "model.safetensors", "config.json", "metrics.jsonl", "loss.png", "sample.txt"

Bytes = bytes | memoryview
CHUNK = 1 << 20  # bytes read at a time
BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None


def refuse_special(path: Path) -> None:
    """Raises CheckpointError for a folder, a pipe, which would wait for a writer, or a device without an end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CheckpointError(f"{path} is not a file.")


def refuse_nul(path: str | Path, what: str) -> None:
    """Raises CheckpointError for a name that no system takes."""
    if "\0" in str(path):
        raise CheckpointError(f"The name of {what} cannot have a NUL character in it.")


def write_atomically(path: Path, data: Bytes | Iterable[Bytes]) -> None:
    """Write a file such that `path` is at every moment the old one or the new one, also after a loss of power.

    The bytes go to a temporary file beside it, to the disk, are read back and compared, and only then get their name.
    Raises CheckpointError if the disk does not take them; the old file is then still there, or, if it was the folder
    that could not be brought to the disk, the new one, whole.
    """
    parts = [data] if isinstance(data, bytes | memoryview) else list(data)
    with writing(path):
        # the process's number, for commands that write a picture into the folder of a run that goes on
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | BINARY
            handle = os.open(temporary, flags, 0o666)
            try:
                for part in parts:
                    write_all(handle, part)
                os.fsync(handle)
            finally:
                os.close(handle)
            _verify(temporary, parts)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def write_all(handle: int, part: Bytes) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        written = os.write(handle, rest)
        if written == 0:
            raise OSError("the disk took nothing")
        rest = rest[written:]


def _verify(path: Path, parts: list[Bytes]) -> None:
    """Read a file back and hold it against what was to be in it."""
    handle = os.open(path, os.O_RDONLY | BINARY)
    try:
        if hasattr(os, "posix_fadvise"):  # from the disk, not from the memory it was written from, where that is heard
            with contextlib.suppress(OSError):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                found = os.read(handle, min(len(rest), CHUNK))
                if not found or found != rest[: len(found)]:
                    raise OSError("what was written reads back differently")
                rest = rest[len(found) :]
        if os.read(handle, 1):
            raise OSError("what was written reads back longer")
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make new names last. Windows cannot open a folder, and needs no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(*paths: str) -> None:
    """Raises UserError before anything is measured if a result could not be written."""
    for path in filter(None, paths):
        if "\0" in path:
            raise UserError("The name of a file cannot have a NUL character in it.")
        folder = Path(path).parent
        if Path(path).is_dir():
            raise UserError(f"Cannot write {path}: it is a folder.")
        if not folder.is_dir():
            raise UserError(f"Cannot write {path}: there is no folder {folder}.")
        if not os.access(path if Path(path).exists() else folder, os.W_OK):
            raise UserError(f"Cannot write {path}: it is not permitted.")


def write_text(path: str, text: str) -> None:
    """A file is the old one or the new one at every moment; a pipe or a terminal, which cannot be replaced, is written
    to."""
    target = Path(os.path.realpath(path))  # a link stays one
    if target.is_file() or not target.exists():
        write_atomically(target, text.encode())
        return
    with writing(target):
        target.write_text(text, "utf-8")
