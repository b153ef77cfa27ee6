"""Encode a long text word by word, each distinct word once.

GPT-2's pre-tokenizer cuts a text into words, each with the space before it, and each is encoded by itself. A text
repeats its words, so a dictionary of those that have been encoded makes encoding far faster than the package alone.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Unicode's White_Space; Python's \s has four control characters more.
SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
BOUNDARY = re.compile(rf"(?<=[^{SPACES}]) (?=[^{SPACES}\x1c-\x1f])")
# Words up to white space, for texts with characters of which Python and the package may not think alike. What GPT-2
# cuts within them, at digits and signs, is left to the package.
COARSE = re.compile(rf" ?[^{SPACES}]+|[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+")
NEWER = range(0x1F300, 0x1F650)  # pictographs and emoticons, signs since 2010
KEPT = 1 << 20  # distinct words that are remembered; then all are forgotten
LONGEST = 1 << 20  # characters without a boundary, after which a text is cut anywhere


class Chunks:
    """Encodes pieces of a text, and remembers their words."""

    def __init__(self, encode: Callable[[list[str]], list[bytes]]) -> None:
        """`encode` returns the token ids of each of some words, as the bytes of int32."""
        self._encode = encode
        self._known: dict[str, bytes] = {}

    def encode(self, text: str) -> Array:
        """Return the token ids of a text that begins and ends between words, (N,) int32."""
        words, unsettled = words_of_gpt2()
        found = (COARSE if unsettled.search(text) else words).findall(text)
        ids = list(map(self._known.get, found))
        self._fill(found, ids)
        return np.frombuffer(b"".join(ids), np.int32)  # type: ignore[arg-type]  # none is missing now

    def _fill(self, words: list[str], ids: list[bytes | None]) -> None:
        """Encode the words whose ids are None, each once."""
        places, place = [], -1
        with contextlib.suppress(ValueError):  # no further one
            while True:
                places.append(place := ids.index(None, place + 1))
        if not places:
            return
        new = list(dict.fromkeys(words[place] for place in places))
        if len(self._known) > KEPT:
            self._known.clear()
        self._known.update(zip(new, self._encode(new), strict=True))
        for place in places:
            ids[place] = self._known[words[place]]


@functools.cache
def words_of_gpt2() -> tuple[re.Pattern[str], re.Pattern[str]]:
    r"""Return what a word is for GPT-2 in texts of settled characters, and what finds any other character.

    Settled are those that have been letters, numbers or signs since Unicode 3.2 of 2002, and NEWER ones: of the rest,
    the tables of Python and of the package may differ. GPT-2's pattern is
    `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`; Python's regular expressions have no
    \p.
    """
    kinds: dict[str, list[int]] = {"L": [], "N": [], "": []}
    for code in range(0x10000):
        kind, before = unicodedata.category(chr(code)), unicodedata.ucd_3_2_0.category(chr(code))
        same = all((kind[0] == each) == (before[0] == each) for each in "LN")
        if same and before not in ("Cn", "Co", "Cs"):
            kinds[kind[0] if kind[0] in kinds else ""].append(code)
    kinds[""] += [code for code in NEWER if unicodedata.category(chr(code))[0] == "S"]
    letters, numbers, others = map(_class, kinds.values())
    words = (
        f"'(?:[sdmt]|ll|ve|re)| ?[{letters}]+| ?[{numbers}]+| ?[^{SPACES}{letters}{numbers}]+|"
        f"[{SPACES}]+(?![^{SPACES}])|[{SPACES}]+"
    )
    return re.compile(words), re.compile(f"[^{letters}{numbers}{others}{SPACES}]")


def _class(codes: list[int]) -> str:
    """Return ascending code points as the inside of a class of a regular expression."""
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


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
