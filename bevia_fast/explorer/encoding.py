"""The numbers of a page: tensors as bytes that compress well, in one text.

The bytes of a tensor's elements are put apart, all first bytes, then all second bytes, and so on (as in HDF5's shuffle
filter): signs and exponents of neighbors are alike, the ends of mantissas are not. The tensors follow one another, each
at a multiple of 8 bytes, and are compressed with zlib and written in base64. `page/data.js` reads them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Stored = Literal["exact", "float16", "uint16", "uint8"]

ALIGNMENT = 8  # bytes
LEVEL = 6  # of zlib; the highest takes longer and saves less than a percent
PARTS = 255  # uint8 holds shares of one in so many steps


@dataclass(frozen=True)
class Tensor:
    """An array of a page, and how it is stored.

    "exact" is its own dtype, float32 or float64. "uint8" holds numbers from 0 to 1, to within half of 1/255. With
    `lower`, the last two axes are matrices that are 0 above the diagonal, and the zeros are left out.
    """

    name: str
    array: Array
    stored: Stored = "exact"
    lower: bool = False


def encode(tensors: Iterable[Tensor], *, half: bool = False) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the entries that describe tensors in a page's header, and all of their bytes in base64.

    With `half`, exact tensors become float16, unless they have numbers that float16 cannot hold.
    """
    entries: dict[str, dict[str, Any]] = {}
    parts: list[bytes] = []
    end = 0
    for tensor in tensors:
        values = tensor.array
        if tensor.lower:
            rows, columns = np.tril_indices(values.shape[-1])
            values = values[..., rows, columns]
        values = _stored(values, "float16" if half and tensor.stored == "exact" else tensor.stored)
        data = values.reshape(-1, 1).view(np.uint8).reshape(values.size, values.itemsize).T.tobytes()
        entries[tensor.name] = {
            "dtype": values.dtype.name, "shape": list(tensor.array.shape), "offset": end, "bytes": len(data),
        } | ({"lower": True} if tensor.lower else {})  # fmt: skip
        padding = -len(data) % ALIGNMENT
        parts += [data, b"\0" * padding]
        end += len(data) + padding
    return entries, base64.b64encode(zlib.compress(b"".join(parts), LEVEL)).decode()


def _stored(values: Array, stored: Stored) -> Array:
    """Return values as they are stored, in little-endian bytes."""
    dtype = np.dtype(values.dtype if stored == "exact" else stored)
    if stored == "float16" and values.size and not np.abs(values).max() <= np.finfo(np.float16).max:
        dtype = values.dtype
    elif stored == "uint8":
        values = np.rint(values * PARTS)
    return np.ascontiguousarray(values, dtype.newbyteorder("<"))
