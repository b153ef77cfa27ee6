"""Reading text from files, folders and standard input in blocks, so that it may be larger than memory."""

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

BLOCK = 1 << 17  # bytes read at a time: intermediate results on the way to tokens then stay in a core's caches
MARK = "\ufeff"  # the byte order mark, decoded


def text_blocks(paths: Sequence[str], size: int = BLOCK) -> Iterator[str]:
    """Yield the text of files, folders and standard input ("-") in nonempty blocks of about `size` bytes.

    Of a folder, every *.txt at any depth is read, in sorted order, except the samples of runs. The text is unchanged
    except for a byte order mark; a newline separates two files if the first does not end in one. Without paths, yield
    the default text. Raises DataError naming the file, and the byte offset where it is not UTF-8.
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
    """Return the language reference that comes with Python for help(): about 465,000 characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("This Python lacks pydoc_data.topics, the default text; name a text with --data.") from None
    return "\n".join(topics[name] for name in sorted(topics))


@dataclass(frozen=True)
class Source:
    """Identifies a file and its current contents without reading it.

    Any change of the contents changes one of the two times, even if a program resets the first.
    """

    path: str
    inode: int
    size: int
    modified: int
    """When the contents last changed, in ns."""
    changed: int
    """When the file or its metadata last changed, in ns; on Windows, when it was created."""


def sources(paths: Sequence[str]) -> list[Source] | None:
    """Return the files that `text_blocks` reads, in order, or None if one is a stream, which cannot be read twice.

    Raises DataError if there is no such file.
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
    """Return the names of the files that `path` stands for."""
    if path == "-" or not os.path.isdir(path):
        return [path]
    with _reading(path):
        files = sorted(file for file in Path(path).rglob("*.txt") if file.is_file() and not _is_sample(file))
    if not files:
        raise DataError(f"The folder {path} contains no *.txt file, at any depth.")
    return [str(file) for file in files]


def _is_sample(file: Path) -> bool:
    """Return whether a run wrote this file, which no run should train on."""
    return file.name == SAMPLE and (file.parent / METRICS).exists()


def _named(path: str) -> str:
    return "Standard input" if path == "-" else path


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn an OSError into a DataError of one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        where = getattr(error, "filename", None) or _named(name)  # the file inside a folder
        raise DataError(f"Cannot read {where}: {reason}.") from None


def _read(name: str, size: int) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        with _reading(name):
            file = sys.stdin.buffer if name == "-" else stack.enter_context(open(name, "rb"))
        yield from _decoded(file, name, size)


def _decoded(file: BinaryIO, name: str, size: int) -> Iterator[str]:
    """Yield the text of a file in nonempty blocks."""
    done, rest = 0, b""  # the number of decoded bytes, and the start of a character that ends in the next block
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
        if done == 0:  # the first character is complete, or there is none yet
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
    """Raise DataError if a zero byte follows: "binary file" says more than the first invalid byte."""
    while block := _block(file, name, offset, size):
        offset += len(block)
