"""A character vocabulary: token i is the i-th character of the alphabet, sorted by code point."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..describing import table
from ..errors import DataError, escaped
from ..naming import option
from .vocabulary import Vocabulary

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


class Tokenizer(Vocabulary):
    """Maps text to token ids and back. `alphabet` is a string of distinct characters, sorted by code point."""

    unit = "character"
    name = "chars"

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

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the characters of tokens as they come."""
        return (self.alphabet[token] for token in tokens)

    def token_bytes(self, token: int) -> bytes:
        """Return a character in UTF-8; half of a surrogate pair, which is none, as three bytes."""
        return self.alphabet[token].encode("utf-8", "surrogatepass")

    @functools.cached_property
    def byte_lengths(self) -> Array:
        """How many bytes of UTF-8 each character has, (V,) int64."""
        return sum((self._codes >= least).astype(np.int64) for least in (0, 0x80, 0x800, 0x10000))  # type: ignore[return-value]

    def stored(self) -> dict[str, Any]:
        """Return the alphabet."""
        return {"alphabet": self.alphabet}

    def described(self) -> str:
        """Return how many characters are known."""
        return f"{len(self)} distinct"

    def shown(self, most: int = 300) -> str:
        """Return the alphabet; see `shown_alphabet`."""
        return self.shown_alphabet(most)

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
            f"{what} contains {listed}, which the model does not know; {self._form_of(first)}its alphabet is "
            f"{self.shown_alphabet()}"
        )

    def _form_of(self, unknown: Iterable[str]) -> str:
        """Return what the Unicode normal form of the model's text has to do with unknown characters."""
        for char in unknown:
            parts = unicodedata.normalize("NFD", char)
            if len(parts) > 1 and (self.find(parts) >= 0).all():
                written = " and ".join(visible(part) for part in parts)
                return (
                    f"its text is in normal form D (NFD), where {visible(char)} is written as {written} (train with "
                    f"{option('normalize', 'nfc')} to compose them); "
                )
            joins = is_mark(char) or "\u1100" <= char <= "\u11ff"  # the letters that make up a Hangul syllable
            if joins and any(char in unicodedata.normalize("NFD", known) for known in self.alphabet):
                return "its text is in normal form C (NFC), where letters and their marks are one character; "
        return ""

    def shown_alphabet(self, most: int = 300) -> str:
        """Return the alphabet on one line, at most `most` characters of it.

        Unprintable characters are escaped, and combining marks stand on a dotted circle.
        """
        shown = "".join(
            f"◌{char}" if is_mark(char) else ascii(char)[1:-1] if char in BLANK else escaped(char)
            for char in self.alphabet[:most]
        )
        return f"{shown} ... ({len(self)} characters)" if len(self) > most else shown


# Characters that count as printable, and show nothing.
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))


def is_mark(char: str) -> bool:
    """Return whether a character is drawn onto the one before it, such as a combining accent."""
    return unicodedata.category(char).startswith("M") and char not in BLANK


def visible(char: str) -> str:
    """Return a character so that one sees which it is.

    That is in quotes, like `'é'`. What shows nothing or is drawn onto its neighbor is named, like
    `U+0301 COMBINING ACUTE ACCENT`; what has no name is escaped, like `'\\n'` or `'\\udc80'`.
    """
    if char.isprintable() and not is_mark(char) and char not in BLANK:
        return f"'{char}'"
    name = unicodedata.name(char, "")
    return f"U+{ord(char):04X} {name}" if name else ascii(char)
