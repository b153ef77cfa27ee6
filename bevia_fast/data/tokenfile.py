"""Encoded texts: a small one is in memory, a larger one in a file that is mapped into memory and cached for later runs.

An entry of the cache is found by the path, inode, size and times of the source files, which change when the files do,
and by the options with which they are read, and by the vocabulary unless that is the characters. Its parts are

    the numbers | a description in JSON | the length of the description, its SHA-256, MAGIC

It is used only if the length, the description, and the SHA-256 of SAMPLES pieces of the numbers, spread evenly, are
those that were written. This detects a file that was truncated, or whose blocks the disk lost. The pieces cover texts
below 4 MiB completely.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import flush, sync_folder
from ..kernels.lock import take_lock
from ..kernels.places import cache_root
from ..machine import available_bytes, readable
from ..reporter import Reporter
from .decoding import Form, remarks_on
from .encoding import encode, encode_tokens
from .sources import PLAIN, Source, TextSource, sources, tell_files, text_blocks, text_size
from .tokenizer import Tokenizer
from .vocabulary import Vocabulary

Array = NDArray[Any]

IN_MEMORY = 16 << 20  # bytes; texts up to this size are not cached, because encoding them takes a tenth of a second
KEPT = 16 << 30  # bytes of all entries together; the least recently used ones are removed first
SAMPLES, PIECE = 64, 64 << 10  # number of pieces, bytes of each
ENCODING = "Encoding the text"
TRAINING_SHARE = 0.9  # of a text; the rest is the validation split

MAGIC = b"bevia-fast tokens 1\n"
TAIL = struct.Struct("<Q32s20s")


@dataclass(frozen=True)
class CodedText:
    """An encoded text: its i-th character is characters[codes[i]], or with a vocabulary its i-th token is codes[i]."""

    codes: Array  # (N,) uint8, uint16 or uint32
    characters: str  # distinct, in the order of their numbers; see `encode`
    fingerprint: str
    """SHA-256 of the text in UTF-8."""
    path: Path | None = None
    """The entry of the cache that holds `codes`, if there is one."""
    mapping: mmap.mmap | None = None
    """The mapped file that holds `codes`, if there is one."""
    vocabulary: Vocabulary | None = None
    """What the codes are token ids of; None if they are numbers of characters."""

    @property
    def tokens(self) -> int:
        """The number of tokens of the vocabulary, or of different characters."""
        return len(self.characters if self.vocabulary is None else self.vocabulary)

    @property
    def unit(self) -> str:
        """What a token is called."""
        return Tokenizer.unit if self.vocabulary is None else self.vocabulary.unit


def coded_text(
    source: TextSource, reporter: Reporter | None = None, vocabulary: Vocabulary | None = None
) -> CodedText:
    """Return the encoded text of `source` (see `text_blocks`), from the cache if the files have not changed.

    Without a vocabulary, or with one of characters, the characters are numbered as they come.

    Notes tell what a user may not expect: files of a folder that are not read, the line ends of Windows.

    A stream is encoded into a temporary file. If the cache's folder cannot be written, the text stays in memory. Raises
    DataError if neither has room, and whatever `text_blocks` raises.
    """
    reporter = reporter or Reporter()
    tell_files(source, reporter)
    text = _coded(source, reporter, None if isinstance(vocabulary, Tokenizer) else vocabulary)
    for remark in remarks_on(text.characters, source.form):
        reporter.note(remark)
    return text


def _coded(source: TextSource, reporter: Reporter, vocabulary: Vocabulary | None) -> CodedText:
    files = sources(source)
    size = text_size(files) if files is not None else 0
    if not source.paths or (files is not None and size <= IN_MEMORY):
        return _in_memory(source, size, reporter, vocabulary)
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        if files is not None:
            path = folder / f"{entry_key(files, source.form, vocabulary)}.tokens"
            return _open_entry(path, vocabulary) or _new_entry(path, source, files, reporter, vocabulary)
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed below
    except BrokenPipeError:  # the reader of the progress closed the pipe; the disk is all right
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        needed = 2 * size  # twice, because the array grows, and a character may need two bytes
        free = available_bytes()
        if free is not None and needed > free:
            raise DataError(
                f"There is no room for the tokens of this text (in {cache_folder()}: {reason}; in memory: "
                f"{readable(needed)} needed, {readable(free)} free); set BEVIA_FAST_CACHE_DIR to another folder."
            ) from None
        reporter.note(f"the tokens of the text stay in memory, because {cache_folder()} cannot hold them: {reason}.")
        return _in_memory(source, size, reporter, vocabulary)
    with stream:
        try:
            with reporter.counting(ENCODING, 0) as report:
                about = _encode(source, vocabulary, stream, report)
            stream.flush()
            return _mapped(stream, about, vocabulary)
        except BrokenPipeError:  # as above
            raise
        except OSError as error:  # the part of the stream that was read is lost
            raise DataError(f"Cannot write the tokens to {folder}: {error.strerror or error}.") from None


def cache_folder() -> Path:
    """Return the folder of the cache; the environment variable BEVIA_FAST_CACHE_DIR overrides its parent."""
    return cache_root() / "texts"


def _in_memory(source: TextSource, size: int, reporter: Reporter, vocabulary: Vocabulary | None) -> CodedText:
    buffer = io.BytesIO()
    with reporter.counting(ENCODING, size) as report:
        about = _encode(source, vocabulary, buffer, report)
    codes = np.frombuffer(buffer.getbuffer(), about["dtype"])
    return CodedText(codes, about["characters"], about["fingerprint"], vocabulary=vocabulary)


def _encode(
    source: TextSource, vocabulary: Vocabulary | None, file: BinaryIO, report: Callable[[int], None]
) -> dict[str, Any]:
    if vocabulary is None:
        return encode(text_blocks(source), file, report)
    return encode_tokens(text_blocks(source), vocabulary, file, report)


# -------------------------------------------------------------------------------------------------------------- entries


def entry_key(files: list[Source], form: Form, vocabulary: Vocabulary | None = None) -> str:
    """Return the name of the entry of these files, read in this form."""
    about: list[object] = [asdict(file) for file in files]
    if form != PLAIN:  # the entries of earlier versions, which had no other, are still found
        about.append(asdict(form))
    if vocabulary is not None:
        about.append(vocabulary.fingerprint)
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def _new_entry(
    path: Path, source: TextSource, files: list[Source], reporter: Reporter, vocabulary: Vocabulary | None
) -> CodedText:
    """Encode the text into a new entry, which gets its name only when it is complete and on disk."""
    size = text_size(files)
    _make_room(path.parent, size)
    with _temporary(path.parent) as (file, temporary), reporter.counting(ENCODING, size) as report:
        about = _encode(source, vocabulary, file, report)
        if sources(source) != files:
            raise DataError("The text changed while it was being read; try again.")
        numbers = about["count"] * np.dtype(about["dtype"]).itemsize
        about["sample"] = _sample(file, numbers)
        text = json.dumps(about).encode()
        file.seek(numbers)
        file.write(text + TAIL.pack(len(text), hashlib.sha256(text).digest(), MAGIC))
        file.flush()
        flush(file.fileno())
        if os.name == "nt":  # Windows cannot rename an open file
            file.close()
        os.replace(temporary, path)
    sync_folder(path.parent)
    entry = _open_entry(path, vocabulary)
    if entry is None:
        raise OSError(errno.EIO, "the data read back differs from the data written")
    return entry


def _open_entry(path: Path, vocabulary: Vocabulary | None) -> CodedText | None:
    """Return the text of an entry and mark it as used now. Returns None if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - TAIL.size)
            length, digest, magic = TAIL.unpack(file.read())
            file.seek(size - TAIL.size - length)
            text = file.read(length)
            if magic != MAGIC or hashlib.sha256(text).digest() != digest:
                return None
            about = json.loads(text)  # not validated further, because the hash is right
            numbers = about["count"] * np.dtype(about["dtype"]).itemsize
            if numbers + length + TAIL.size != size or _sample(file, numbers) != about["sample"]:
                return None
            with contextlib.suppress(OSError):  # the cache may be read-only
                os.utime(path)
            return _mapped(file, about, vocabulary, path)
    except (OSError, ValueError, struct.error):  # missing, or too short
        return None


def _mapped(
    file: BinaryIO, about: dict[str, Any], vocabulary: Vocabulary | None, path: Path | None = None
) -> CodedText:
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mapping, "madvise") and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # windows are far apart, so reading ahead is useless
    codes = np.frombuffer(mapping, about["dtype"], about["count"])
    return CodedText(codes, about["characters"], about["fingerprint"], path, mapping, vocabulary)


def _sample(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of SAMPLES pieces, spread evenly over the first `size` bytes."""
    digest = hashlib.sha256()
    step = max(PIECE, -(-size // SAMPLES))
    for start in range(0, size, step):
        start = start if start + step < size else max(start, size - PIECE)  # the last piece ends at the end
        file.seek(start)
        digest.update(file.read(min(PIECE, size - start)))
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- the folder


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a new file, locked so that no process takes it for a leftover. It is removed if it was not renamed."""
    while True:
        handle, path = tempfile.mkstemp(".part", ".", folder)
        file = open(handle, "w+b")  # noqa: SIM115  # closed below
        try:
            locked = _lock(handle)
            if locked and os.path.exists(path):
                break
        except BaseException:
            file.close()
            raise
        file.close()  # another process took it for a leftover before it was locked
    try:
        with file:
            yield file, path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _lock(handle: int) -> bool:
    try:
        return take_lock(handle)
    except OSError:  # a file system without locks; there, `_remove_leftovers` removes nothing
        return True


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed: those that no process has locked."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            if take_lock(file.fileno()):
                os.unlink(path)


def _make_room(folder: Path, needed: int) -> None:
    """Remove the least recently used entries until `needed` more bytes fit into KEPT and on the disk.

    A process that has a removed entry open can still read it. Raises OSError if they do not fit in any case.
    """
    entries = []
    for path in (*folder.glob("*.tokens"), *folder.glob("*.vocabulary")):
        with contextlib.suppress(OSError):  # another process removed it
            about = path.stat()
            entries.append((about.st_mtime_ns, about.st_size, path))
    free, kept = shutil.disk_usage(folder).free, sum(size for _, size, _ in entries)
    if needed <= free + kept:
        for _, size, path in sorted(entries):
            if kept + needed <= KEPT and needed <= free:
                break
            with contextlib.suppress(OSError):  # on Windows, an open file cannot be removed
                os.unlink(path)
                free, kept = shutil.disk_usage(folder).free, kept - size
    if needed > free:
        raise OSError(errno.ENOSPC, f"{readable(needed)} needed, {readable(free)} free")
