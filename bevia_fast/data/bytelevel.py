"""Bytes as tokens: token i is the byte i of the text in UTF-8. Any text can be encoded, without a library."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vocabulary import Vocabulary

Array = NDArray[Any]

BYTES = 256


class ByteTokenizer(Vocabulary):
    """Maps text to the bytes of its UTF-8 and back."""

    unit = "byte"
    name = "bytes"

    def __len__(self) -> int:
        return BYTES

    def __repr__(self) -> str:
        return "<ByteTokenizer>"

    def encode(self, text: str, what: str = "The text") -> Array:
        """Return the bytes of a text in UTF-8, (N,) int32; also those that a shell passed in place of characters."""
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def token_bytes(self, token: int) -> bytes:
        """Return the byte itself. Raises IndexError if there is no such token."""
        if not 0 <= token < BYTES:
            raise IndexError(f"token id {token} is not from 0 to {BYTES - 1}")
        return bytes([token])

    def stored(self) -> dict[str, Any]:
        """Return that tokens are bytes."""
        return {"tokens": "bytes"}

    def described(self) -> str:
        """Return what tokens are."""
        return "tokens are bytes"

    def shown(self, most: int = 300) -> str:
        """Return what tokens are."""
        return "all 256 bytes"


def utf8(text: str) -> bytes:
    """Return a text in UTF-8. Half of a surrogate pair is the byte that a shell passed, or else becomes U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


@functools.cache
def byte_characters() -> str:
    """Return the 256 characters that byte-level BPE writes bytes as in its files: character i is byte i.

    Bytes that Latin-1 shows stand for themselves; the others are U+0100 and on, in their order. From GPT-2's
    `bytes_to_unicode` (https://github.com/openai/gpt-2/blob/master/src/encoder.py).
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(BYTES) if byte not in visible]
    return "".join(chr(byte) if byte in visible else chr(BYTES + hidden.index(byte)) for byte in range(BYTES))
