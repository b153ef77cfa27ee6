"""Encode a text as numbers, in as few bytes as its tokens need.

A character is numbered when a block of the text first contains it, so that one pass over the text is enough. `corpus`
maps these numbers to token ids, which are in the order of the alphabet. Other tokens are numbered by their vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from .tokenizer import CODE_POINTS, characters, code_points, distinct
from .vocabulary import Vocabulary

WIDENED = 1 << 20  # numbers rewritten at a time


def encode(blocks: Iterable[str], file: BinaryIO, report: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Write the numbers of a text to an empty file, and return what is needed to read them.

    That is `count`, `dtype` ("|u1", "<u2" or "<u4"), `characters` (number i stands for characters[i]), and the
    `fingerprint`, the SHA-256 of the text in UTF-8. `report` is called with the number of bytes of UTF-8 done.
    """
    table = np.full(CODE_POINTS, -1, np.int32)  # code point -> number, -1 if it has not occurred yet
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
        report(done)
    return {"count": count, "dtype": dtype.str, "characters": found, "fingerprint": digest.hexdigest()}


def encode_tokens(
    blocks: Iterable[str], vocabulary: Vocabulary, file: BinaryIO, report: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Write the token ids of a text to an empty file, and return the same as `encode`; `characters` are those that the
    text has, sorted. Raises what the vocabulary raises."""
    seen = np.zeros(CODE_POINTS, np.bool_)
    digest, done, count = hashlib.sha256(), 0, 0

    def watched() -> Iterator[str]:
        nonlocal done
        for text in blocks:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(data)
            seen[code_points(text)] = True
            yield text
            done += len(data)
            report(done)

    dtype = np.min_scalar_type(len(vocabulary) - 1).newbyteorder("<")
    for ids in vocabulary.encoded(watched()):
        file.write(ids.astype(dtype).data)
        count += ids.size
    found = characters(np.flatnonzero(seen).astype("<u4"))
    return {"count": count, "dtype": dtype.str, "characters": found, "fingerprint": digest.hexdigest()}


def _widen(file: BinaryIO, count: int, old: np.dtype[Any], new: np.dtype[Any]) -> None:
    """Rewrite the `count` numbers in `file` with more bytes each, from the end, so that none is overwritten unread."""
    for start in reversed(range(0, count, WIDENED)):
        file.seek(start * old.itemsize)
        codes = np.frombuffer(file.read(min(WIDENED, count - start) * old.itemsize), old)
        file.seek(start * new.itemsize)
        file.write(codes.astype(new).data)
    file.seek(count * new.itemsize)
