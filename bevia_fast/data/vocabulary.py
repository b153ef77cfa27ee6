"""What everything else asks about tokens, whatever they are: characters, bytes, or byte pairs merged by frequency.

A vocabulary maps text to token ids and back. Each token stands for some bytes of UTF-8: a character for its own, a
token of byte-pair encoding (BPE) for any, perhaps a part of a character. So losses of models with different tokens
compare in bits per byte.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import escaped

Array = NDArray[Any]

LINE_END = 10  # the byte of a newline, which an empty prompt stands for


class Vocabulary(ABC):
    """Maps text to token ids and back. Token i is one of `len(vocabulary)`."""

    unit = "token"
    """What a token is called where tokens are counted."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of tokens."""

    @abstractmethod
    def encode(self, text: str, what: str = "The text") -> Array:
        """Return the token ids of a text, (N,) int32.

        Raises DataError, which calls the text `what`, if it has something that no token stands for, and ConfigError if
        a package is missing.
        """

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for, in UTF-8; a part of a character may not be valid by itself."""

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """Return the entries of a model file that hold the vocabulary; `vocabularies.restored` reads them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The value of --tokens that describes the vocabulary, such as bpe:512."""

    @abstractmethod
    def described(self) -> str:
        """Return a few words for the facts of a run, such as "65 distinct"."""

    @abstractmethod
    def shown(self, most: int = 300) -> str:
        """Return the tokens on one line, at most about `most` characters of them."""

    def encoded(self, blocks: Iterable[str]) -> Iterator[Array]:
        """Yield the token ids (int32) of the text that `blocks` are the parts of, whatever its length."""
        for block in blocks:
            yield self.encode(block)

    def decode(self, ids: Array) -> str:
        """Return the text of token ids (N,), with U+FFFD for bytes that are no character.

        Raises IndexError for an id outside [0, vocabulary size).
        """
        ids = np.asarray(ids)
        if ids.size and int(ids.min()) < 0:
            raise IndexError(f"token id {int(ids.min())} is negative")
        return b"".join(map(self.token_bytes, ids.tolist())).decode("utf-8", "replace")

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens as they come. A part of a character is held back until the character is whole.

        The pieces together are what `decode` returns, so bytes that are no character become U+FFFD; none is empty.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            text = decoder.decode(self.token_bytes(token))
            if text:
                yield text
        text = decoder.decode(b"", final=True)
        if text:
            yield text

    @functools.cached_property
    def byte_lengths(self) -> Array:
        """How many bytes of UTF-8 each token stands for, (V,) int64."""
        return np.array([len(self.token_bytes(token)) for token in range(len(self))], np.int64)

    @functools.cached_property
    def first(self) -> int:
        """The token that an empty prompt stands for: a newline, or the first one if no token is a newline."""
        newline = bytes([LINE_END])
        return next((token for token in range(len(self)) if self.token_bytes(token) == newline), 0)

    def label(self, token: int) -> str:
        """Return the text of a token, or its bytes in hexadecimal if they are no characters."""
        data = self.token_bytes(token)
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.hex(" ")

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of all that `encode` and `decode` depend on."""
        return hashlib.sha256(json.dumps(self.stored(), sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.stored() == other.stored()

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def listed_tokens(vocabulary: Vocabulary, first: int, most: int) -> str:
    """Return tokens from `first` on between bars, about `most` characters of them, and how many there are."""
    parts: list[str] = []
    for token in range(first, len(vocabulary)):
        parts.append(escaped(vocabulary.label(token)))
        if sum(map(len, parts)) + len(parts) > most:
            return f"{'|'.join(parts[:-1])} ... ({len(vocabulary):,} tokens)"
    return "|".join(parts)
