"""Arrays and metadata in one file: the safetensors format, with a checksum over every bit.

A file consists of eight bytes for the header's length, the header in JSON, and the arrays one after another. The header
begins with PREFIX and the 64 digits of the SHA-256 of the whole file without those digits. Any reader of safetensors
can open such a file; transformers also wants `"format": "pt"` in the metadata. This one trusts nothing before it has
verified the checksum, and allocates no memory before it has checked names, shapes and sizes. The format holds numbers
and text but no code, so opening a file from a stranger is safe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
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
FOR_TRANSFORMERS = {"format": "pt"}  # transformers before version 5 refuses files without it; ours lacked it once
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names -> names in the file
MOST_HEADER = 16 << 20  # bytes; even an alphabet of all of Unicode fits
MOST_VALUES = 1 << 19  # lists, objects and commas in the metadata: parsed, `[],` takes thirty times its size

NAME = re.compile(r',"([^"\\]*+(?:\\.[^"\\]*+)*+)":')
ENTRY = re.compile(r'\{"dtype":"(\w{1,9})","shape":\[([\d,]{0,99})\],"data_offsets":\[(\d{1,20}),(\d{1,20})\]\}')


def write_tensors(path: Path, tensors: Mapping[str, Array], about: dict[str, Any]) -> int:
    """Write C-contiguous arrays and metadata for JSON atomically, and return the file's size in bytes.

    Raises CheckpointError; an existing file then stays.
    """
    layout = {name: (array.shape, array.dtype.name) for name, array in tensors.items()}
    header = json.dumps(
        {
            "__metadata__": {"checksum": "0" * DIGITS, FORMAT: json.dumps(about), **FOR_TRANSFORMERS},
            **_entries(layout),
        },
        separators=(",", ":"),
    ).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    if len(header) > MOST_HEADER or _values(json.dumps(about)) > MOST_VALUES:
        raise CheckpointError(f"Cannot write {path}: names and options take more than a file can hold.")
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
        self._begins: dict[str, int] = {}
        try:
            self._header = file.read(length).decode("ascii")
            self.about, self._rest = self._metadata()
        except (ValueError, RecursionError) as error:
            raise damaged_header(path, error) from None

    def _metadata(self) -> tuple[dict[str, Any], int]:
        """Return the metadata, and where the entries of the tensors begin. Raises ValueError or RecursionError.

        The header is not parsed as a whole, because a hostile one would fill the memory. It is compared with what
        `write_tensors` writes for the model that the metadata describes.
        """
        before = f'","{FORMAT}":"'
        start = len(PREFIX) + DIGITS
        if not self._header.startswith(before, start):
            raise ValueError(f"it has no metadata of {FORMAT}")
        text, end = json.JSONDecoder().raw_decode(self._header, start + len(before) - 1)
        rest = "," + json.dumps(FOR_TRANSFORMERS, separators=(",", ":"))[1:-1]
        end += len(rest) if self._header.startswith(rest, end) else 0
        if not self._header.startswith("}", end):
            raise ValueError("there is more than one text of metadata")
        if _values(text) > MOST_VALUES:
            raise ValueError(f"the metadata has more than {MOST_VALUES:,} values")
        about = json.loads(text)
        if not isinstance(about, dict):
            raise ValueError("the metadata is not an object")
        return about, end + 1

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
        wanted, place = _entries(layout), self._rest
        for name, entry in wanted.items():
            match = NAME.match(self._header, place)
            if match is None or match[1] != name:
                raise self._unexpected(place, name, wanted)
            text, place = json.dumps(entry, separators=(",", ":")), match.end()
            if not self._header.startswith(text, place):
                is_now, should = _described(self._header, place), _described(text, 0)
                raise CheckpointError(f"{self.path} is damaged: {name} is {is_now}; expected {should}.")
            self._begins[name] = entry["data_offsets"][0]
            place += len(text)
        if not self._ends(place):
            raise self._unexpected(place, "", wanted)
        end = max((entry["data_offsets"][1] for entry in wanted.values()), default=0)
        expected = self._start + end
        if self._size != expected:
            raise CheckpointError(f"{self.path} is damaged: it has {self._size:,} bytes instead of {expected:,}.")

    def _unexpected(self, place: int, name: str, wanted: Mapping[str, Any]) -> CheckpointError:
        """Return the error for a place of the header where the tensor `name`, or the end, is expected."""
        match = NAME.match(self._header, place)
        if self._ends(place) or (name and match is not None and match[1] in wanted):
            return CheckpointError(f"{self.path} is damaged: {shown(name)} is missing.")
        if match is None:
            return damaged_header(self.path, ValueError("the list of tensors is invalid"))
        return CheckpointError(f"{self.path} is damaged: {shown(match[1])} is not part of this model.")

    def _ends(self, place: int) -> bool:
        return self._header.startswith("}", place) and not self._header[place + 1 :].strip(" ")

    def read_into(self, name: str, array: Array) -> None:
        """Read a tensor of the layout passed to `check` into a C-contiguous array.

        Raises CheckpointError for NaN and infinity.
        """
        self._file.seek(self._start + self._begins[name])
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


def _described(header: str, place: int) -> str:
    """Describe the entry at a place of a header, which may be anything."""
    match = ENTRY.match(header, place)
    if match is None:
        return shown(header[place : place + 201])
    dtype, shape, begin, end = match.groups()
    sizes = tuple(int(size) for size in shape.split(",") if size)
    return shown(f"{dtype} {sizes} at {begin}-{end}")


def _values(text: str) -> int:
    """Return an upper bound for the number of values in JSON."""
    return sum(map(text.count, "[{,"))


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
