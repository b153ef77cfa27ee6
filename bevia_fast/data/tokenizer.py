"""A character vocabulary: token i is the i-th character of the alphabet, sorted by code point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..describing import table
from ..errors import DataError, escaped

Array = NDArray[Any]

CODE_POINTS = 0x110000  # all of Unicode
SHOWN = 5  # unknown characters that an error lists


def code_points(text: str) -> Array:
    """Return the code points of a text, (N,) uint32. Lone surrogates, which a shell can pass in a prompt, are kept."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def distinct(points: Array) -> Array:
    """Return the distinct code points among `points` (N,), sorted: (V,) uint32."""
    seen = np.zeros(CODE_POINTS, np.bool_)
    seen[points] = True
    return np.flatnonzero(seen).astype("<u4")


def characters(points: Array) -> str:
    """Return the text of code points (N,)."""
    return points.astype("<u4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")


class Tokenizer:
    """Maps text to token ids and back. `alphabet` is a string of distinct characters, sorted by code point."""

    def __init__(self, alphabet: str) -> None:
        codes = code_points(alphabet)
        if not codes.size or (codes[1:] <= codes[:-1]).any():
            raise DataError("An alphabet must be one or more distinct characters, sorted by code point.")
        self.alphabet = alphabet
        self._codes = codes
        self._ids = np.full(int(codes[-1]) + 2, -1, np.int32)  # the last entry stands for all higher code points
        self._ids[codes] = np.arange(codes.size, dtype=np.int32)

    @classmethod
    def from_text(cls, text: str) -> Tokenizer:
        """Return the vocabulary of all characters that occur in `text`."""
        return cls(characters(distinct(code_points(text))))

    def __repr__(self) -> str:
        return f"<Tokenizer of {len(self):,} characters: {self.shown_alphabet(50)}>"

    def _repr_html_(self) -> str:
        rows = [("characters", f"{len(self):,}"), ("alphabet", self.shown_alphabet())]
        return table("Tokenizer", rows)

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str, what: str = "The text") -> Array:
        """Return the token ids of a text, (len(text),) int32.

        Raises DataError, which calls the text `what`, for characters that are not in the alphabet.
        """
        ids = self.find(text)
        if (ids < 0).any():
            raise self.unseen(((text[place], place) for place in np.flatnonzero(ids < 0).tolist()), what)
        return ids

    def find(self, text: str) -> Array:
        """Return token ids (len(text),) int32, with -1 for characters that are not in the alphabet."""
        ids: Array = self._ids[np.minimum(code_points(text), self._ids.size - 1)]
        return ids

    def decode(self, ids: Array) -> str:
        """Return the text of token ids (N,). Raises IndexError for an id outside [0, vocabulary size)."""
        ids = np.asarray(ids)
        if ids.size and int(ids.min()) < 0:
            raise IndexError(f"token id {int(ids.min())} is negative")
        return characters(self._codes[ids])

    def unseen(self, found: Iterable[tuple[str, int]], what: str) -> DataError:
        """Return the error for characters that are not in the alphabet.

        `found` are pairs of a character and its position, counted from 0; the error counts from 1.
        """
        first: dict[str, int] = {}
        for char, position in found:
            first.setdefault(char, position)
            if len(first) > SHOWN:
                break
        named = [f"{visible(char)} (character {position + 1})" for char, position in first.items()]
        if len(named) > SHOWN:
            named[SHOWN:] = ["others"]
        listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
        return DataError(
            f"{what} contains {listed}, which the model does not know; its alphabet is {self.shown_alphabet()}"
        )

    def shown_alphabet(self, most: int = 300) -> str:
        """Return the alphabet on one line, at most `most` characters of it, with unprintable characters escaped."""
        shown = escaped(self.alphabet[:most])
        return f"{shown} ... ({len(self)} characters)" if len(self) > most else shown


def visible(char: str) -> str:
    """Return a character in quotes, like `'é'`; if it is unprintable, escaped, like `'\\n'` or `'\\udc80'`."""
    return f"'{char}'" if char.isprintable() else ascii(char)
