"""Read text from files, folders and standard input, a block at a time, so that it may be larger than memory."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import TrainConfig
from ..errors import DataError
from ..naming import option
from ..reporter import Reporter
from .decoding import GZIP, Form, decoded
from .selection import MARKED_UP, named, reading, select

BLOCK = 1 << 17  # bytes read at a time: few enough for all arrays of the encoding to stay in a core's cache
PLAIN = Form()  # UTF-8, as it is


@dataclass(frozen=True)
class TextSource:
    """Where a text comes from, and how it is read: the options `data`, `glob`, `encoding`, `newlines`, `normalize`."""

    paths: Sequence[str] = ()
    globs: Sequence[str] = ()
    form: Form = PLAIN


def text_blocks(source: TextSource, size: int = BLOCK) -> Iterator[str]:
    """Yield the text of files, folders and standard input ("-") in blocks of about `size` bytes, none of them empty.

    The text is kept as it is, unless the source's form says otherwise, except that byte order marks are removed, and
    that a newline is inserted between two files if the first does not end with one. Without paths, yields the default
    text. Raises DataError for a file that is missing, empty or not text in the encoding, with the byte offset.
    """
    if not source.paths:
        yield default_text()
        return
    last = "\n"  # the previous character
    for path in source.paths:
        empty = True
        for name in select(path, source.globs).files:
            for number, text in enumerate(_read(name, source.form, size)):
                if number == 0 and last != "\n":
                    yield "\n"
                yield text
                last, empty = text[-1], False
        if empty:
            raise DataError(f"{named(path)} is empty.")


def text_source(config: TrainConfig) -> TextSource:
    """Return the text that the options of a run name."""
    return TextSource(config.data, config.glob, Form(config.encoding, config.newlines, config.normalize))


def default_text() -> str:
    """Return the language reference that Python includes for its help(): about 465,000 characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError(
            f"This Python lacks pydoc_data.topics, the default text; name a text with {option('data')}."
        ) from None
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


def sources(source: TextSource) -> list[Source] | None:
    """Return the files that `text_blocks` reads, in the same order.

    Returns None if one of them is a stream, which cannot be read twice. Raises DataError if a file is missing, or if a
    folder contains no text.
    """
    found = []
    for name in (name for path in source.paths for name in select(path, source.globs).files):
        if name == "-":
            return None
        with reading(name):
            about = os.stat(name)
            if not stat.S_ISREG(about.st_mode):
                return None
            path = str(Path(name).resolve())
            found.append(Source(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    return found


def text_size(files: Sequence[Source]) -> int:
    """Return about how many bytes of text these files hold, without reading them.

    A file that is compressed with gzip ends with the size of its contents, modulo 4 GiB.
    """
    return sum(max(file.size, _uncompressed(file)) for file in files)


def _uncompressed(file: Source) -> int:
    if not file.path.lower().endswith(".gz") or file.size < 18:  # the least that gzip writes
        return 0
    with reading(file.path), open(file.path, "rb") as opened:
        if opened.read(len(GZIP)) != GZIP:
            return 0
        opened.seek(-4, os.SEEK_END)
        return int.from_bytes(opened.read(4), "little")


def tell_files(source: TextSource, reporter: Reporter) -> None:
    """Report which files of folders are read and which are not, without reading them."""
    selections = [select(path, source.globs) for path in source.paths]
    for found in selections:
        if found.is_folder:
            reporter.fact("files", found.described())
        for link in found.dangling:
            reporter.note(f"{link} is a link to nothing, so it is not read.")
        for name in found.files:
            what = MARKED_UP.get(Path(name.lower().removesuffix(".gz")).suffix)
            if what:
                reporter.note(f"{name} is read as it is, including {what}.")
                break  # one file of a folder is enough
    if source.globs and not any(found.is_folder for found in selections):
        reporter.note(f"{option('glob')} has no effect, because {option('data')} names no folder.")


def _read(name: str, form: Form, size: int) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        if name == "-":
            if sys.stdin is None:
                raise DataError("There is no standard input to read.")
            file = sys.stdin.buffer
        else:
            with reading(name):
                file = stack.enter_context(open(name, "rb"))
        with reading(name):
            blocks = decoded(file, named(name), form, size)
        while True:
            with reading(name):
                text = next(blocks, None)
            if text is None:
                return
            yield text
