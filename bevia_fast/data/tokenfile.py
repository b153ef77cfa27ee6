"""A text as numbers, in as few bytes as its characters need: a small text in memory, a larger one in a file that is
mapped into memory and cached for the next run.

The file is written in one pass over the text, so characters are numbered in the order in which they first occur;
`Corpus` has the table from these numbers to token ids. A cache entry is identified by the path, inode, size and times
of the source files. Its layout is

    the numbers | their description in JSON | the length of the JSON, its sha256, MAGIC

It is trusted only if the length, the JSON and the sha256 of SAMPLES evenly spaced pieces of the numbers are as written,
which detects truncated files and lost disk blocks. For a text below 4 MiB, the pieces cover everything.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from numpy.typing import NDArray

from ..errors import DataError
from ..files import sync_folder
from ..kernels.lock import take_lock
from ..machine import available_bytes, readable
from ..reporter import Reporter
from .sources import Source, sources, text_blocks
from .tokenizer import CODE_POINTS, characters, code_points, distinct

Array = NDArray[Any]

IN_MEMORY = 16 << 20  # bytes; reading and encoding that many takes a tenth of a second
KEPT = 16 << 30  # bytes of all cache entries; the least recently used are removed first
SAMPLES, PIECE = 64, 64 << 10  # the number of pieces, and the bytes of each
WIDENED = 1 << 20  # numbers rewritten at a time
ENCODING = "Encoding the text"

MAGIC = b"bevia-fast tokens 1\n"
TAIL = struct.Struct("<Q32s20s")


@dataclass(frozen=True)
class CodedText:
    """A text as numbers: its i-th character is characters[codes[i]]."""

    codes: Array  # (N,) uint8, uint16 or uint32
    characters: str  # distinct, in order of first occurrence
    fingerprint: str
    """The sha256 of the text in UTF-8, which identifies it."""
    path: Path | None = None
    """The cache entry that `codes` is mapped from."""
    mapping: mmap.mmap | None = None


def coded_text(paths: Sequence[str], reporter: Reporter | None = None) -> CodedText:
    """Return the text of `paths` (see `text_blocks`), from the cache if its files are unchanged.

    A text that cannot be cached, because it is a stream or the cache folder cannot be written, goes to a temporary file
    or to memory. Raises DataError if there is no room for it, and whatever `text_blocks` raises.
    """
    reporter = reporter or Reporter()
    files = sources(paths)
    size = sum(file.size for file in files) if files is not None else 0
    if not paths or (files is not None and size <= IN_MEMORY):
        return _in_memory(paths, size, reporter)
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        if files is not None:
            path = folder / f"{_key(files)}.tokens"
            return _open_entry(path) or _new_entry(path, paths, files, reporter)
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed below
    except BrokenPipeError:  # the reader of the progress went away
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        needed = 2 * size  # the array grows while it is built, and a character may need two bytes
        free = available_bytes()
        if free is not None and needed > free:
            raise DataError(
                f"There is no room for the tokens of this text: {cache_folder()}: {reason}, and they need "
                f"{readable(needed)} of memory, of which {readable(free)} are free; the environment variable "
                f"BEVIA_FAST_CACHE_DIR can name another folder."
            ) from None
        reporter.note(f"the tokens of the text are kept in memory because {cache_folder()} cannot hold them: {reason}.")
        return _in_memory(paths, size, reporter)
    with stream:
        try:
            with reporter.counting(ENCODING, 0) as tell:
                about = encode(text_blocks(paths), stream, tell)
            stream.flush()
            return _mapped(stream, about)
        except BrokenPipeError:  # as above
            raise
        except OSError as error:  # the stream cannot be read again
            raise DataError(f"Cannot write the tokens into {folder}: {error.strerror or error}.") from None


def cache_folder() -> Path:
    """Return the folder of the cache entries; BEVIA_FAST_CACHE_DIR overrides it."""
    return Path(os.environ.get("BEVIA_FAST_CACHE_DIR") or platformdirs.user_cache_dir("bevia-fast")) / "texts"


# ------------------------------------------------------------------------------------------------------------ encoding


def _in_memory(paths: Sequence[str], size: int, reporter: Reporter) -> CodedText:
    buffer = io.BytesIO()
    with reporter.counting(ENCODING, size) as tell:
        about = encode(text_blocks(paths), buffer, tell)
    return CodedText(np.frombuffer(buffer.getbuffer(), about["dtype"]), about["characters"], about["fingerprint"])


def encode(blocks: Iterable[str], file: BinaryIO, tell: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Write the numbers of a text into an empty `file`, and return their description.

    `tell` is called with the number of bytes of UTF-8 that are done.
    """
    table = np.full(CODE_POINTS, -1, np.int32)  # from code points to numbers
    found, dtype, count = "", np.dtype("u1"), 0
    digest, done = hashlib.sha256(), 0
    for text in blocks:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(data)
        points = code_points(text)
        codes = table.take(points)
        if (codes < 0).any():
            new = characters(distinct(points[codes < 0]))
            table[code_points(new)] = np.arange(len(found), len(found) + len(new))
            found += new
            codes = table.take(points)
            needed = np.min_scalar_type(len(found) - 1).newbyteorder("<")
            if needed != dtype:
                _widen(file, count, dtype, needed)
                dtype = needed
        file.write(codes.astype(dtype).data)
        count, done = count + codes.size, done + len(data)
        tell(done)
    return {"count": count, "dtype": dtype.str, "characters": found, "fingerprint": digest.hexdigest()}


def _widen(file: BinaryIO, count: int, old: np.dtype[Any], new: np.dtype[Any]) -> None:
    """Rewrite the `count` numbers in `file` with more bytes each, from the end so that none is overwritten unread."""
    for start in reversed(range(0, count, WIDENED)):
        file.seek(start * old.itemsize)
        codes = np.frombuffer(file.read(min(WIDENED, count - start) * old.itemsize), old)
        file.seek(start * new.itemsize)
        file.write(codes.astype(new).data)
    file.seek(count * new.itemsize)


# -------------------------------------------------------------------------------------------------------------- entries


def _key(files: list[Source]) -> str:
    return hashlib.sha256(json.dumps([asdict(file) for file in files]).encode()).hexdigest()[:32]


def _new_entry(path: Path, paths: Sequence[str], files: list[Source], reporter: Reporter) -> CodedText:
    """Encode the text into a new entry, a file that gets its name only when it is complete and on disk."""
    size = sum(file.size for file in files)
    _make_room(path.parent, size)
    with _temporary(path.parent) as (file, temporary), reporter.counting(ENCODING, size) as tell:
        about = encode(text_blocks(paths), file, tell)
        if sources(paths) != files:
            raise DataError("The text changed while it was being read; try again.")
        numbers = about["count"] * np.dtype(about["dtype"]).itemsize
        about["sample"] = _sample(file, numbers)
        text = json.dumps(about).encode()
        file.seek(numbers)
        file.write(text + TAIL.pack(len(text), hashlib.sha256(text).digest(), MAGIC))
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # cannot rename an open file
            file.close()
        os.replace(temporary, path)
    sync_folder(path.parent)
    entry = _open_entry(path)
    if entry is None:
        raise OSError(errno.EIO, "the data read back differs from the data written")
    return entry


def _open_entry(path: Path) -> CodedText | None:
    """Return the text of an entry and mark it as used, or return None if there is no intact entry."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(size - TAIL.size)
            length, digest, magic = TAIL.unpack(file.read())
            file.seek(size - TAIL.size - length)
            text = file.read(length)
            if magic != MAGIC or hashlib.sha256(text).digest() != digest:
                return None
            about = json.loads(text)  # unchanged since it was written, so its contents are valid
            numbers = about["count"] * np.dtype(about["dtype"]).itemsize
            if numbers + length + TAIL.size != size or _sample(file, numbers) != about["sample"]:
                return None
            with contextlib.suppress(OSError):  # a read-only cache works too
                os.utime(path)
            return _mapped(file, about, path)
    except (OSError, ValueError, struct.error):  # absent, or the JSON would start before the file does
        return None


def _mapped(file: BinaryIO, about: dict[str, Any], path: Path | None = None) -> CodedText:
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mapping, "madvise") and hasattr(mmap, "MADV_RANDOM"):
        mapping.madvise(mmap.MADV_RANDOM)  # windows are far apart, so reading ahead is useless
    codes = np.frombuffer(mapping, about["dtype"], about["count"])
    return CodedText(codes, about["characters"], about["fingerprint"], path, mapping)


def _sample(file: BinaryIO, size: int) -> str:
    """Return the sha256 of evenly spaced pieces of the first `size` bytes."""
    digest = hashlib.sha256()
    step = max(PIECE, -(-size // SAMPLES))
    for start in range(0, size, step):
        start = start if start + step < size else max(start, size - PIECE)  # the last piece reaches the end
        file.seek(start)
        digest.update(file.read(min(PIECE, size - start)))
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- the folder


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a new file, locked so that no process takes it for a leftover; remove it afterwards unless renamed."""
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
        file.close()  # another process removed it as a leftover before it was locked
    try:
        with file:
            yield file, path
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _lock(handle: int) -> bool:
    try:
        return take_lock(handle)
    except OSError:  # a file system without locks, where leftovers stay; see _remove_leftovers
        return True


def _remove_leftovers(folder: Path) -> None:
    """Remove the files of killed processes, on which no process holds a lock."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            if take_lock(file.fileno()):
                os.unlink(path)


def _make_room(folder: Path, needed: int) -> None:
    """Remove the least recently used entries until `needed` more bytes are within KEPT and fit on the disk.

    A process that has an entry open keeps its contents. Raises OSError if the bytes cannot fit.
    """
    entries = []
    for path in folder.glob("*.tokens"):
        with contextlib.suppress(OSError):  # another process removed it
            about = path.stat()
            entries.append((about.st_mtime_ns, about.st_size, path))
    free, kept = shutil.disk_usage(folder).free, sum(size for _, size, _ in entries)
    if needed <= free + kept:
        for _, size, path in sorted(entries):
            if kept + needed <= KEPT and needed <= free:
                break
            with contextlib.suppress(OSError):  # open files cannot be removed on Windows
                os.unlink(path)
                free, kept = shutil.disk_usage(folder).free, kept - size
    if needed > free:
        raise OSError(errno.ENOSPC, f"{readable(needed)} are needed and {readable(free)} are free")
