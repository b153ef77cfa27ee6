"""Python's pickles, and PyTorch's files of them, without running any code and without PyTorch.

A pickle is a program: it may name any function and call it. This reader knows the few names that a file of tensors and
plain containers needs, and refuses every other one before it is called.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ..errors import CheckpointError, reason, shown
from ..files import reading, refuse_special
from .foreign import from_bfloat16

Array = NDArray[Any]

LARGEST = 64 << 20  # bytes of a pickle, which holds names, sizes and options
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip


class Refused(Exception):
    """A pickle that names something which a file of tensors does not need."""


@dataclass(frozen=True)
class Storage:
    """The numbers behind one or more tensors."""

    numbers: Array
    bfloat16: bool


def load_pickle(path: Path, content: bytes) -> Any:
    """Return the plain containers, numbers and texts of a pickle. Raises CheckpointError if it needs more."""
    return _Unpickler(path, content, {}).checked()


def load_torch(path: Path) -> Any:
    """Return what `torch.save` wrote, with tensors as arrays, read-only where they share memory.

    bfloat16 becomes float32. Raises CheckpointError for a file that is damaged, of PyTorch before 1.6, or needs code.
    """
    with reading(path):
        refuse_special(path)
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                if len(names) != 1:
                    raise CheckpointError(f"{path} was not written by PyTorch: it holds {len(names)} pickles.")
                if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                    raise CheckpointError(f"{path} is compressed, which PyTorch's own files are not.")
                root = names[0].removesuffix("data.pkl")
                if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:  # parts that overlap
                    raise CheckpointError(f"{path} is damaged: its parts are larger than the file.")
                if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                    raise CheckpointError(f"{path} has the byte order of another kind of machine.")
                if archive.getinfo(names[0]).file_size > LARGEST:
                    raise CheckpointError(f"{path} has a pickle that is larger than that of any model.")
                data = {
                    name.removeprefix(f"{root}data/"): archive.read(name)
                    for name in archive.namelist()
                    if name.startswith(f"{root}data/")
                }
                return _Unpickler(path, archive.read(names[0]), data).checked()
        except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, struct.error) as error:
            raise CheckpointError(f"{path} was not written by PyTorch 1.6 or later: {reason(error)}.") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, content: bytes, data: dict[str, bytes]) -> None:
        super().__init__(io.BytesIO(content))
        self._path, self._data = path, data
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", name): name for name in STORAGES},
        }

    def checked(self) -> Any:
        """Return the object. Raises CheckpointError."""
        try:
            return self.load()
        except Refused as error:
            raise CheckpointError(f"{self._path} is refused: {error}") from None
        except RecursionError:
            raise CheckpointError(f"{self._path} is damaged: its pickle is nested too deeply.") from None
        except Exception as error:  # a damaged pickle raises errors of almost any class
            raise CheckpointError(f"{self._path} is damaged: {type(error).__name__}: {reason(error)}.") from None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise Refused(f"it asks to run {shown(module, 60)}.{shown(name, 60)}; a file of tensors needs no code.")
        return self._known[module, name]

    def persistent_load(self, name: Any) -> Storage:
        kind, storage, key, _, count = name
        if kind != "storage" or storage not in STORAGES:
            raise ValueError("an entry that is not a tensor's")
        numbers = np.frombuffer(self._data[key], STORAGES[storage])
        if numbers.size != count:
            raise ValueError(f"a storage of {numbers.size:,} numbers instead of {count:,}")
        return Storage(numbers, storage == "BFloat16Storage")


def _rebuild(storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
    """Return a tensor as a view of its storage. Raises ValueError if it reaches beyond it."""
    numbers = (*shape, *stride, offset)
    if len(shape) != len(stride) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a tensor's sizes are invalid")
    if math.prod(shape) > storage.numbers.size:
        raise ValueError("a tensor is larger than its storage")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= storage.numbers.size:
        raise ValueError("a tensor reaches beyond its storage")
    base, item = storage.numbers[offset:], storage.numbers.itemsize
    view = as_strided(base, shape, [step * item for step in stride], writeable=False)
    if not storage.bfloat16:
        return view
    return from_bfloat16(np.ascontiguousarray(view).reshape(-1)).reshape(shape)
