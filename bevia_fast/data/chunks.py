"""Encode a long text word by word, each distinct word once.

GPT-2's pre-tokenizer cuts a text into words, each with the space before it, and each is encoded by itself. A text
repeats its words, so a dictionary of those that have been encoded makes encoding far faster than the package alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Unicode's White_Space; Python's \s has four control characters more.
SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# A run of white space before a word is cut before its last character, as by `\s+(?!\S)|\s+` of GPT-2. What GPT-2 cuts
# within words, at digits and signs, is left to the package.
WORDS = re.compile(rf" ?[^{SPACES}]+|[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+")
BOUNDARY = re.compile(rf"(?<=[^{SPACES}]) (?=[^{SPACES}\x1c-\x1f])")
KEPT = 1 << 19  # distinct words that are remembered; then all are forgotten
LONGEST = 1 << 20  # characters without a boundary, after which a text is cut anywhere


class Chunks:
    """Encodes pieces of a text, and remembers their words."""

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]) -> None:
        """`encode` returns the token ids of each of some words."""
        self._encode = encode
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}  # word -> its number
        self._ids = np.empty(0, np.int32)  # of all words, one after the other
        self._starts = np.empty(0, np.int64)  # where those of each word begin
        self._counts = np.empty(0, np.int64)

    def encode(self, text: str) -> Array:
        """Return the token ids of a text that begins and ends between words, (N,) int32."""
        words = WORDS.findall(text)
        try:
            numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        except KeyError:
            self._learn(words)
            numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
        counts = self._counts[numbers]
        ends = np.cumsum(counts)
        if not ends.size:
            return np.empty(0, np.int32)
        found: Array = self._ids[np.arange(ends[-1]) + np.repeat(self._starts[numbers] - (ends - counts), counts)]
        return found

    def _learn(self, words: list[str]) -> None:
        if len(self._numbers) > KEPT:
            self._forget()
        new = [word for word in dict.fromkeys(words) if word not in self._numbers]
        ids = self._encode(new)
        self._numbers.update(zip(new, range(len(self._numbers), len(self._numbers) + len(new)), strict=True))
        counts = np.array([len(each) for each in ids], np.int64)
        self._starts = np.concatenate([self._starts, self._ids.size + np.cumsum(counts) - counts])
        self._counts = np.concatenate([self._counts, counts])
        self._ids = np.concatenate([self._ids, np.array([token for each in ids for token in each], np.int32)])


def whole_words(blocks: Iterable[str]) -> Iterator[str]:
    """Yield the text of `blocks` in pieces that end where a token ends, whatever the vocabulary: before a single space
    between two words. A text without such a place is cut after LONGEST characters."""
    rest: list[str] = []
    held = 0
    for block in blocks:
        last = None
        # the last boundary of a block is near its end, so it is sought backwards
        for start in range(len(block) - 1, 0, -256):
            part = block[max(0, start - 257) : start + 1]
            found = [match.start() for match in BOUNDARY.finditer(part)]
            if found:
                last = max(0, start - 257) + found[-1]
                break
        if last is None and held + len(block) < LONGEST:
            rest.append(block)
            held += len(block)
            continue
        last = len(block) if last is None else last
        yield "".join([*rest, block[:last]])
        rest, held = [block[last:]], len(block) - last
    if text := "".join(rest):
        yield text
