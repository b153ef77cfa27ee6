"""Read text from files, folders and standard input, a block at a time, so that it may be larger than memory."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from ..files import METRICS, SAMPLE, is_file, mode

BLOCK = 1 << 17  # bytes read at a time: few enough for all arrays of the encoding to stay in a core's cache
MARK = "\ufeff"  # the byte order mark


def text_blocks(paths: Sequence[str], size: int = BLOCK) -> Iterator[str]:
    """Yield the text of files, folders and standard input ("-") in blocks of about `size` bytes, none of them empty.

    In a folder, every *.txt at any depth is read, in sorted order, except the samples of runs. The text is kept as it
    is, except that byte order marks are removed, and that a newline is inserted between two files if the first does not
    end with one. Without paths, yields the default text. Raises DataError for a file that is missing, empty or not
    UTF-8, with the byte offset.
    """
    if not paths:
        yield default_text()
        return
    last = "\n"  # the previous character
    for path in paths:
        empty = True
        for name in _files(path):
            for number, text in enumerate(_read(name, size)):
                if number == 0 and last != "\n":
                    yield "\n"
                yield text
                last, empty = text[-1], False
        if empty:
            raise DataError(f"{_named(path)} is empty.")


def default_text() -> str:
    """Return the language reference that Python includes for its help(): about 465,000 characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("This Python lacks pydoc_data.topics, the default text; name a text with --data.") from None
    return "\n".join(topics[name] for name in sorted(topics))


@dataclass(frozen=True)
class Source:
    """Identifies a file and its contents without reading it.

    A change of the contents changes `modified` or `changed`, even if a program sets `modified` back.
    """

    path: str
    inode: int
    size: int
    modified: int
    """When the contents were last changed, in ns."""
    changed: int
    """When anything about the file was last changed, in ns; on Windows, when it was created."""


def sources(paths: Sequence[str]) -> list[Source] | None:
    """Return the files that `text_blocks` reads, in the same order.

    Returns None if one of them is a stream, which cannot be read twice. Raises DataError if a file is missing, or if a
    folder contains no text.
    """
    found = []
    for name in (name for path in paths for name in _files(path)):
        if name == "-":
            return None
        with _reading(name):
            about = os.stat(name)
            if not stat.S_ISREG(about.st_mode):
                return None
            path = str(Path(name).resolve())
            found.append(Source(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return found


def _files(path: str) -> list[str]:
    """Return the files that `path` stands for."""
    if path == "-" or not os.path.isdir(path):
        return [path]
    with _reading(path):
        files = sorted(file for file in Path(path).rglob("*.txt") if is_file(file) and not _is_sample(file))
    if not files:
        raise DataError(f"The folder {path} contains no *.txt file at any depth.")
    return [str(file) for file in files]


def _is_sample(file: Path) -> bool:
    """Return whether a run wrote the file; a run must not train on that."""
    return file.name == SAMPLE and bool(mode(file.parent / METRICS))


def _named(path: str) -> str:
    return "Standard input" if path == "-" else path


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn an OSError into a DataError of one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = getattr(error, "filename", None) or _named(name)  # in a folder, the file
        raise DataError(f"Cannot read {where}: {reason}.") from None


def _read(name: str, size: int) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        with _reading(name):
            file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
        yield from _decoded(file, name, size)


def _decoded(file: BinaryIO, name: str, size: int) -> Iterator[str]:
    """Yield the text of a file in blocks, none of them empty."""
    done, rest = 0, b""  # number of bytes decoded; bytes of a character that the next block completes
    while True:
        block = _block(file, name, done + len(rest), size)
        data = rest + block
        try:
            text, used = codecs.utf_8_decode(data, "strict", not block)
        except UnicodeDecodeError as error:
            _refuse_binary(file, name, done + len(data), size)
            offset, value = done + error.start, data[error.start]
            raise DataError(
                f"{_named(name)} is not UTF-8: byte {offset} is 0x{value:02x} ({error.reason})."
            ) from None
        if done == 0:  # this is the start of the text, or no character is complete yet
            text = text.removeprefix(MARK)
        done, rest = done + used, data[used:]
        if text:
            yield text
        if not block:
            return


def _block(file: BinaryIO, name: str, offset: int, size: int) -> bytes:
    with _reading(name):
        block = file.read(size)
    zero = block.find(0)
    if zero >= 0:
        raise DataError(f"{_named(name)} is not text: byte {offset + zero} is 0, as in a binary or UTF-16 file.")
    return block


def _refuse_binary(file: BinaryIO, name: str, offset: int, size: int) -> None:
    """Raise DataError if the rest contains a 0: "binary file" says more than the position of the first wrong byte."""
    while block := _block(file, name, offset, size):
        offset += len(block)
