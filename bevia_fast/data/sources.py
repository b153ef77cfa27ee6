"""Text from files, folders and standard input, a block at a time, so that it may be larger than the memory."""

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
from ..files import METRICS, SAMPLE

BLOCK = 1 << 17  # bytes read at a time: what is made of them on the way to tokens stays in the caches of a core
MARK = "\ufeff"  # the byte order mark, decoded


def text_blocks(paths: Sequence[str], size: int = BLOCK) -> Iterator[str]:
    """The text of files, of folders (every *.txt below, in sorted order, but for what runs wrote) and of standard
    input ("-"), in blocks of about `size` bytes, none empty.

    Kept as it is, but for a byte order mark; a newline is put between two files if the first does not end in one. No
    path: the default text. Raises DataError naming the file, and the byte offset where it is not UTF-8.
    """
    if not paths:
        yield default_text()
        return
    last = "\n"  # the character before
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
    """The language reference that Python carries for its help(): about 465,000 characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("This Python lacks pydoc_data.topics, the default text; give a text with --data.") from None
    return "\n".join(topics[name] for name in sorted(topics))


@dataclass(frozen=True)
class Source:
    """What tells a file, and what was in it at a time, from others without reading it. A change of the content changes
    one of the two times, even if a program sets the first of them back."""

    path: str
    inode: int
    size: int
    modified: int
    """When the content changed, in ns."""
    changed: int
    """When anything about the file changed, in ns; on Windows, when it was made."""


def sources(paths: Sequence[str]) -> list[Source] | None:
    """The files that `text_blocks` reads, in that order; None if one of them is a stream, which cannot be read twice.
    Raises DataError if there is none."""
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
    """Names of the files that `path` stands for."""
    if path == "-" or not os.path.isdir(path):
        return [path]
    with _reading(path):
        files = sorted(file for file in Path(path).rglob("*.txt") if file.is_file() and not _is_sample(file))
    if not files:
        raise DataError(f"The folder {path} has no *.txt file in it or below.")
    return [str(file) for file in files]


def _is_sample(file: Path) -> bool:
    """Whether a run wrote it: no run learns from that."""
    return file.name == SAMPLE and (file.parent / METRICS).exists()


def _named(path: str) -> str:
    return "Standard input" if path == "-" else path


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = getattr(error, "filename", None) or _named(name)  # of a folder, the file in it
        raise DataError(f"Cannot read {where}: {reason}.") from None


def _read(name: str, size: int) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        with _reading(name):
            file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
        yield from _decoded(file, name, size)


def _decoded(file: BinaryIO, name: str, size: int) -> Iterator[str]:
    """The text of a file, in blocks that are not empty."""
    done, rest = 0, b""  # bytes decoded, and those of a character whose end is in the next block
    while True:
        block = _block(file, name, done + len(rest), size)
        data = rest + block
        try:
            text, used = codecs.utf_8_decode(data, "strict", not block)
        except UnicodeDecodeError as error:
            _look_for_zero(file, name, done + len(data), size)
            offset, value = done + error.start, data[error.start]
            raise DataError(
                f"{_named(name)} is not UTF-8: byte {offset} is 0x{value:02x} ({error.reason})."
            ) from None
        if done == 0:  # nothing before: the first character is complete, or there is none yet
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


def _look_for_zero(file: BinaryIO, name: str, offset: int, size: int) -> None:
    """Raises DataError if there is a 0 further on: that it is a binary file tells more than its first wrong byte."""
    while block := _block(file, name, offset, size):
        offset += len(block)
