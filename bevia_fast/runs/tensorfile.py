"""Arrays and metadata in one file: the safetensors format, with a checksum over every bit.

A file consists of eight bytes for the header's length, the header in JSON, and the arrays one after another. The header
begins with PREFIX and the 64 digits of the SHA-256 of the whole file without those digits. Any reader of safetensors
can open such a file. This one trusts nothing before it has verified the checksum, and allocates no memory before it has
checked names, shapes and sizes. The format holds numbers and text but no code, so opening a file from a stranger is
safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, DamagedFile, shown
from ..files import CHUNK, Bytes, reading, refuse_special, write_atomically

Array = NDArray[Any]
Layout = Mapping[str, tuple[tuple[int, ...], str]]  # name -> (shape, NumPy's name of the dtype)

FORMAT = "bevia-fast"
PREFIX = b'{"__metadata__":{"checksum":"'
DIGITS = 64
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names -> names in the file
MOST_HEADER = 16 << 20  # bytes; even an alphabet of all of Unicode fits


def write_tensors(path: Path, tensors: Mapping[str, Array], about: dict[str, Any]) -> int:
    """Write C-contiguous arrays and metadata for JSON atomically, and return the file's size in bytes.

    Raises CheckpointError; an existing file then stays.
    """
    layout = {name: (array.shape, array.dtype.name) for name, array in tensors.items()}
    header = json.dumps(
        {"__metadata__": {"checksum": "0" * DIGITS, FORMAT: json.dumps(about)}, **_entries(layout)},
        separators=(",", ":"),
    ).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    rest = header[len(PREFIX) + DIGITS :]
    start = len(header).to_bytes(8, "little") + PREFIX
    data: list[Bytes] = [array.data.cast("B") for array in tensors.values() if array.size]
    checksum = hashlib.sha256(start)
    for part in (rest, *data):
        checksum.update(part)
    parts: list[Bytes] = [start, checksum.hexdigest().encode(), rest, *data]
    write_atomically(path, parts)
    return sum(map(len, parts))


def _entries(layout: Layout) -> dict[str, Any]:
    """Return the header's entry of each tensor; the tensors follow one another without gaps."""
    entries, end = {}, 0
    for name, (shape, dtype) in layout.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        entries[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    return entries


class TensorFile:
    """A file open for reading, whose checksum has been verified. `about` is its metadata, which is not validated."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        self._start = 8 + length
        if self._size < 8 + len(PREFIX) + DIGITS or self._start > self._size:
            raise DamagedFile(f"{path} is not a complete safetensors file.")
        if length > MOST_HEADER:
            raise CheckpointError(f"{path} has a header of {length:,} bytes; at most {MOST_HEADER:,} are allowed.")
        if file.read(len(PREFIX)) != PREFIX:
            raise CheckpointError(f"{path} was not written by bevia-fast.")
        self._verify()
        file.seek(8)
        try:
            self._entries: dict[str, Any] = json.loads(file.read(length))
            self.about: dict[str, Any] = json.loads(self._entries.pop("__metadata__")[FORMAT])
            if not isinstance(self.about, dict):
                raise ValueError("the metadata is not an object")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise damaged_header(path, error) from None

    def _verify(self) -> None:
        """Compare the checksum with that of the contents, reading a chunk at a time."""
        file = self._file
        found = file.read(DIGITS)
        rest = hashlib.sha256((self._start - 8).to_bytes(8, "little") + PREFIX)
        while chunk := file.read(CHUNK):
            rest.update(chunk)
        if found != rest.hexdigest().encode():
            raise DamagedFile(f"{self.path} is damaged: its checksum does not match its contents.")

    def check(self, layout: Layout) -> None:
        """Raise CheckpointError unless the file holds exactly these tensors and nothing behind them."""
        wanted = _entries(layout)
        for name in sorted(wanted.keys() ^ self._entries.keys()):
            what = "missing" if name in wanted else "not part of this model"
            raise CheckpointError(f"{self.path} is damaged: {shown(name)} is {what}.")
        for name, entry in wanted.items():
            found = self._entries[name]
            if found != entry:
                raise CheckpointError(
                    f"{self.path} is damaged: {name} is {_described(found)}; expected {_described(entry)}."
                )
        end = max((entry["data_offsets"][1] for entry in wanted.values()), default=0)
        expected = self._start + end
        if self._size != expected:
            raise CheckpointError(f"{self.path} is damaged: it has {self._size:,} bytes instead of {expected:,}.")

    def read_into(self, name: str, array: Array) -> None:
        """Read a tensor into a C-contiguous array. Raises CheckpointError for NaN and infinity."""
        self._file.seek(self._start + self._entries[name]["data_offsets"][0])
        view, got = array.data.cast("B"), 0
        while got < len(view):
            count = self._file.readinto(view[got:])  # type: ignore[attr-defined]  # binary files have it
            if not count:
                raise CheckpointError(f"{self.path} ends in the middle of {name}.")
            got += count
        if not np.isfinite(array).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise CheckpointError(f"{self.path} is damaged: {name}{list(index)} is {array[index]}.")


def damaged_header(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a header that cannot be understood."""
    return CheckpointError(f"{path} has a damaged header ({type(error).__name__}: {shown(error).rstrip('.')}).")


def _described(entry: Any) -> str:
    """Describe an entry of a header, which may be anything."""
    try:
        begin, end = entry["data_offsets"]
        return shown(f"{entry['dtype']} {tuple(entry['shape'])} at {begin}-{end}")
    except (KeyError, TypeError, ValueError):
        return shown(repr(entry))


def is_damaged(path: Path) -> bool:
    """Return whether a file can be read but its contents have changed since it was written."""
    try:
        with open_tensors(path):
            return False
    except DamagedFile:
        return True
    except CheckpointError:  # written by another program or version, or not readable now
        return False


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a file and verify its checksum. Raises CheckpointError if that fails."""
    with reading(path):
        refuse_special(path)
        with open(path, "rb") as file:
            yield TensorFile(path, file)
