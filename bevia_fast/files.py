"""Reading and writing files: a written file is complete or absent, and a disk error becomes one sentence."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .config import STANDARD
from .errors import CheckpointError, StoppedRun, UserError

RUNS = "runs"  # the folder of the runs that have no name of their own
# The names of a run's files. They are known here because a folder of text is read without its sample.txt.
MODEL, OPTIONS, METRICS, LOSS, SAMPLE = "model.safetensors", "options.json", "metrics.jsonl", "loss.png", "sample.txt"
BEST = "best.safetensors"
# What transformers reads beside the model, see `doors.hub`. Earlier versions kept the options of a run in config.json.
CONFIG, VOCABULARY = "config.json", "tokenizer.json"
HUB = (CONFIG, VOCABULARY, "tokenizer_config.json", "generation_config.json")
CHECKPOINTS, FILM = "checkpoints", "film"  # subfolders

Bytes = bytes | memoryview
CHUNK = 1 << 20  # bytes read at a time
BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_control: Any = None  # of files; its contents differ between systems
with contextlib.suppress(ImportError):  # Windows has none
    _control = importlib.import_module("fcntl")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a CheckpointError of one sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror or error}.") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError into a CheckpointError of one sentence."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None


def mode(path: str | Path) -> int:
    """Return the mode of a file or folder, or 0 if there is none. Raises OSError if the system does not say.

    From Python 3.14 on, the tests of `Path` return False for a file that may not be examined.
    """
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def is_folder(path: str | Path) -> bool:
    """Like `Path.is_dir`; raises OSError if the system does not say."""
    return stat.S_ISDIR(mode(path))


def is_file(path: str | Path) -> bool:
    """Like `Path.is_file`; raises OSError if the system does not say."""
    return stat.S_ISREG(mode(path))


def options_file(run: Path) -> Path:
    """Return the file with the options of a run: options.json, or config.json in a run of an earlier version.

    Raises OSError if the system does not say whether they are there.
    """
    earlier = mode(run / CONFIG) and not mode(run / VOCABULARY)
    return run / (CONFIG if earlier and not mode(run / OPTIONS) else OPTIONS)


def refuse_special(path: Path) -> None:
    """Raise CheckpointError for a folder, a pipe (reading would block) or a device (which may have no end)."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise CheckpointError(f"{path} is not a file.")


def refuse_nul(path: str | Path, what: str) -> None:
    """Raise CheckpointError for a name that contains a NUL character."""
    if "\0" in str(path):
        raise CheckpointError(f"The name of {what} cannot contain a NUL character.")


def write_atomically(path: Path, data: Bytes | Iterable[Bytes]) -> None:
    """Write a file so that `path` is the old file or the new file at every moment, even after a loss of power.

    The bytes are written to a temporary file beside it, flushed to disk, read back and compared; only then is the file
    renamed. Raises CheckpointError if that fails. The old file is then still there, or, if only the folder could not be
    flushed, the complete new one.
    """
    parts = [data] if isinstance(data, bytes | memoryview) else list(data)
    with writing(path), replacing(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | BINARY
        handle = os.open(temporary, flags, 0o666)
        try:
            for part in parts:
                write_all(handle, part)
            flush(handle)
        finally:
            os.close(handle)
        _verify(temporary, parts)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Inside this context, write and flush the temporary file beside `path` that it gives. At the end, that file takes
    the place of `path`; if anything fails, it is removed. Raises OSError."""
    # with the process ID: another command may write a picture into the folder of a run that is still training
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def flush(handle: int) -> None:
    """Flush an open file to disk.

    On macOS, fsync hands the data to the drive, which may keep it in a cache of its own; F_FULLFSYNC empties that too.
    """
    command = getattr(_control, "F_FULLFSYNC", None)
    if command is not None:
        with contextlib.suppress(OSError):  # a network drive may not know the command
            _control.fcntl(handle, command)
            return
    os.fsync(handle)


def write_all(handle: int, part: Bytes) -> None:
    rest = memoryview(part).cast("B")
    while rest:
        written = os.write(handle, rest)
        if written == 0:
            raise OSError("the disk accepts no data")
        rest = rest[written:]


def _verify(path: Path, parts: list[Bytes]) -> None:
    """Read a file back and compare it with what was written."""
    handle = os.open(path, os.O_RDONLY | BINARY)
    try:
        if hasattr(os, "posix_fadvise"):  # read from the disk and not from the page cache, if the system complies
            with contextlib.suppress(OSError):
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        for part in parts:
            rest = memoryview(part).cast("B")
            while rest:
                found = os.read(handle, min(len(rest), CHUNK))
                if not found or found != rest[: len(found)]:
                    raise OSError("the data read back differs from the data written")
                rest = rest[len(found) :]
        if os.read(handle, 1):
            raise OSError("the data read back is longer than the data written")
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk. Windows cannot open folders and does not need this."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def check_writable(*paths: str) -> None:
    """Raise UserError if one of the files could not be written later, or if two of them are standard output."""
    if paths.count(STANDARD) > 1:
        raise UserError("Only one file can be -, which stands for standard output.")
    for path in filter(None, paths):
        if path == STANDARD:
            continue
        if "\0" in path:
            raise UserError("The name of a file cannot contain a NUL character.")
        folder = Path(path).parent
        if Path(path).is_dir():
            raise UserError(f"Cannot write {path}: it is a folder.")
        if not folder.is_dir():
            raise UserError(f"Cannot write {path}: there is no folder {folder}.")
        if not os.access(path if Path(path).exists() else folder, os.W_OK):
            raise UserError(f"Cannot write {path}: permission denied.")


def write_text(path: str, text: str) -> None:
    """Write a text file atomically; a pipe or a terminal, which cannot be replaced, is written to directly. A path of -
    is standard output."""
    if path == STANDARD:
        write_to_standard_output(text.encode())
        return
    target = Path(os.path.realpath(path))  # keep a symbolic link
    if target.is_file() or not target.exists():
        write_atomically(target, text.encode())
        return
    with writing(target):
        target.write_text(text, "utf-8")


def write_to_standard_output(data: bytes) -> None:
    """Write bytes to standard output. Raises UserError if it is closed, StoppedRun if they are not all written, and
    BrokenPipeError if nobody reads them."""
    if sys.stdout is None or isinstance(sys.stdout, Nowhere):
        raise UserError("Cannot write to standard output: it is closed.")
    sys.stdout.flush()
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoppedRun(f"Cannot write to standard output: {error.strerror or error}.") from None


class Nowhere(io.TextIOWrapper):
    """What stands in for a standard stream that is closed: what is printed is lost, and what is asked for refused."""

    def __init__(self) -> None:
        super().__init__(open(os.devnull, "wb"), encoding="utf-8")  # noqa: SIM115  # open until the exit


def read_standard_input(what: str) -> str:
    """Return the text on standard input, without the newline at its end, which echo and editors add.

    `what` begins the error message. Raises UserError if standard input is closed or not UTF-8.
    """
    if sys.stdin is None:
        raise UserError(f"{what} cannot be read from standard input: it is closed.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} on standard input is not UTF-8: byte {error.start} is "
                        f"0x{error.object[error.start]:02x}.") from None  # fmt: skip
    except OSError as error:
        raise UserError(f"{what} cannot be read from standard input: {error.strerror or error}.") from None
    return text.removesuffix("\n").removesuffix("\r")
