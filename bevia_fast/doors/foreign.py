"""Safetensors files of other programs: no checksum, tensors in any order, half precision, one file or several.

They are read as carefully as our own: names, types, shapes and places are checked before memory is allocated, and
nothing in such a file is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, shown
from ..files import mode, reading, refuse_special, write_atomically

Array = NDArray[Any]

MOST_HEADER = 100_000_000  # bytes; what the safetensors package allows
ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
# The types that a weight may be stored in -> NumPy's, in which it is read. bfloat16 is the upper half of a float32.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_folder(folder: Path) -> dict[str, Array]:
    """Return the tensors of a folder's model.safetensors, or of the files that its index names. See `read_file`.

    Raises CheckpointError if there are none, or if a file is missing or damaged.
    """
    with reading(folder):
        if mode(folder / ONE_FILE):
            return read_file(folder / ONE_FILE)
        if not mode(folder / INDEX):
            raise CheckpointError(f"{folder} has neither {ONE_FILE} nor {INDEX}.")
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{folder / INDEX} does not say in which files the tensors are.")
    found: dict[str, Array] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or "\0" in name:
            raise CheckpointError(f"{folder / INDEX} names {shown(name)}, which is not a file of this folder.")
        found |= read_file(folder / name)
    missing = sorted(places.keys() - found.keys())
    if missing:
        raise CheckpointError(f"{folder / INDEX} names {shown(missing[0])}, which is in none of its files.")
    return found


def read_file(path: Path) -> dict[str, Array]:
    """Return the tensors of a file by name, as float32 or, where they are stored so, as float64.

    Tensors of integers and truth values, such as masks, are left out. Raises CheckpointError if the file cannot be
    read, is damaged, or has tensors of another type.
    """
    with reading(path):
        refuse_special(path)
        size = os.stat(path).st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or 8 + length > size or length > MOST_HEADER:
                raise CheckpointError(f"{path} is not a complete safetensors file.")
            header = _parsed(path, file.read(length))
            found: dict[str, Array] = {}
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                try:
                    dtype, shape, begin, end = _entry(entry, size - 8 - length)
                except (ValueError, TypeError, KeyError) as error:
                    raise CheckpointError(
                        f"{path} has a damaged header: tensor {shown(name)}: {shown(error)}."
                    ) from None
                if dtype is None:
                    continue
                file.seek(8 + length + begin)
                stored = np.frombuffer(file.read(end - begin), dtype)
                found[name] = _widened(stored).reshape(shape)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises CheckpointError if it cannot be read or is something else."""
    with reading(path):
        refuse_special(path)
        if os.stat(path).st_size > MOST_HEADER:
            raise CheckpointError(f"{path} is larger than any file of its kind.")
        return _parsed(path, path.read_bytes())


def write_file(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write C-contiguous tensors, float32 or float64, atomically, as transformers does. Raises CheckpointError."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        kind = {"float32": "F32", "float64": "F64"}[tensor.dtype.name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = [tensor.data.cast("B") for tensor in tensors.values() if tensor.size]
    write_atomically(path, [len(text).to_bytes(8, "little"), text, *data])


def _parsed(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {shown(error)}.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object.")
    return found


def _entry(entry: Mapping[str, Any], size: int) -> tuple[str | None, tuple[int, ...], int, int]:
    """Return NumPy's type (None for other than weights), shape, and place in the data. Raises ValueError if wrong."""
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError("a size is not a natural number")
    if not begin <= end <= size:
        raise ValueError(f"it ends at byte {end:,} of {size:,}")
    if kind in ("BOOL", "U8", "I8", "I16", "I32", "I64", "U16", "U32", "U64"):
        return None, shape, begin, end
    if kind not in DTYPES:
        raise ValueError(f"its type {kind} is unknown; known are {', '.join(DTYPES)}")
    if math.prod(shape) * np.dtype(DTYPES[kind]).itemsize != end - begin:
        raise ValueError(f"{end - begin:,} bytes are not {kind} of shape {list(shape)}")
    return DTYPES[kind], shape, begin, end


def _widened(stored: Array) -> Array:
    """Return numbers as they are read from a file as float32, or as float64 if they are that."""
    if stored.dtype == np.uint16:
        return from_bfloat16(stored)
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def from_bfloat16(stored: Array) -> Array:
    """Return bfloat16, read as uint16 (N,), as float32 (N,)."""
    return (stored.astype(np.uint32) << 16).view(np.float32)
