"""Guess the encoding of bytes that are not UTF-8, so that an error can say how to read them.

Each candidate decodes the bytes. In the right encoding, nearly all characters beyond ASCII are those that its languages
use often; in a wrong one, they are symbols, rare ideographs, or letters in impossible places.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterable
from dataclasses import dataclass

LEAST = 0.7  # share of the highest score below which a guess would be no better than none
MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
         (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """An encoding, and the characters by which its text is recognized."""

    name: str
    usual: frozenset[str]  # nearly all of the text
    frequent: frozenset[str] = frozenset()  # a good part of it: tells ideographs of one encoding from another's
    latin: bool = False  # the characters stand among ASCII letters, and not in rows
    double: bool = False  # a character is two bytes, so that being a usual one means twice as much

    @property
    def highest(self) -> int:
        """The score of a text that has only such characters."""
        return 1 + self.double + bool(self.frequent)


def likely_encoding(data: bytes) -> str:
    """Return the encoding in which `data` reads like text, or "" if there is none.

    `data` starts at the first byte that is not valid, or at the ASCII character before it, and may end within a
    character.
    """
    best, found = 0.0, ""
    for candidate in _candidates():
        score = _score(data, candidate)
        if candidate.double:  # what is valid as UTF-8 by chance may end in the middle of a character
            score = max(score, _score(data[1:], candidate) - 0.1)
        if score > best and score >= LEAST * candidate.highest:
            best, found = score, candidate.name
    return found


def marked_encoding(start: bytes) -> str:
    """Return the encoding whose byte order mark a file starts with, or ""."""
    return next((name for mark, name in MARKS if start.startswith(mark)), "")


def wide_encoding(data: bytes, offset: int) -> str:
    """Return the encoding of text without a mark that contains zeros: UTF-16 or UTF-32 of either byte order, or "".

    `offset` is where `data` is in its file. In the right one, there are ASCII characters, such as the ends of lines,
    and no control characters; a binary file is not valid or has both.
    """
    most, found = 0, ""
    for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        try:
            text = codecs.getincrementaldecoder(name)().decode(data[-offset % 4 :])
        except UnicodeDecodeError:
            continue
        ascii_characters = sum(char.isascii() for char in text)
        if ascii_characters > most and all(char >= " " or char in "\t\n\v\f\r" for char in text):
            most, found = ascii_characters, name
    return found


def _score(data: bytes, candidate: Candidate) -> float:
    text = codecs.getincrementaldecoder(candidate.name)("replace").decode(data)
    beyond, usual, frequent = 0, 0, 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char <= "\x7f":
            continue
        beyond += 1
        if char not in candidate.usual:
            continue
        if candidate.latin:
            possible = not (before in candidate.usual and after in candidate.usual)
        else:
            possible = not (before.isascii() and before.isalpha()) and not (after.isascii() and after.isalpha())
        usual += possible
        frequent += possible and char in candidate.frequent
    return (usual * (1 + candidate.double) + frequent) / beyond if beyond else 0.0


@functools.cache
def _candidates() -> tuple[Candidate, ...]:
    """Return the candidates; of two with the same score, the first one is taken."""
    quotes = "\xa0‘’“”„«»–—…"
    western = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýßœÀÉÈÊÇÄÖÜÅØÆÑ¿¡°§€ªº" + quotes)
    central = frozenset("ąćęłńóśźżáčďéěíňřšťúůýžäöüőűâăîşţșțĄĆĘŁŃÓŚŹŻČŘŠŽÁÉÍÖÜŐŰ" + quotes)
    cyrillic = frozenset(map(chr, range(0x410, 0x450))) | frozenset("ёЁіїєґІЇЄҐўЎ№" + quotes)
    russian = frozenset("оеаинтсрвлкмдпуяыьгзбчйхжію")
    greek, hebrew, arabic, thai = (
        frozenset(map(chr, range(*ends))) | frozenset(quotes)
        for ends in ((0x386, 0x3CF), (0x5D0, 0x5EB), (0x60C, 0x653), (0xE01, 0xE5C))
    )
    points = frozenset("，。、；：？！“”‘’（）《》「」『』…—　・")
    kana = frozenset(map(chr, range(0x3041, 0x30FF)))
    level_1 = _ideographs("euc_jp", range(0xB0, 0xD0))
    japanese = kana | level_1 | points
    simplified = frozenset(
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里好"
    )
    traditional = frozenset(
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡好"
    )
    korean = frozenset("이다의는에을가고하한은를지로도사기시나자어서리인정아대있게일해수")
    return (
        Candidate("cp1252", western, latin=True),
        Candidate("cp1250", central, latin=True),
        Candidate("iso8859_2", central, latin=True),
        Candidate("mac_roman", western, latin=True),
        Candidate("cp850", western - {"\xa0"}, latin=True),
        Candidate("gb18030", _ideographs("gb2312", range(0xB0, 0xD8)) | points, simplified, double=True),
        Candidate("big5", _ideographs("big5", range(0xA4, 0xC7), 0x40) | points, traditional, double=True),
        Candidate("shift_jis", japanese, kana, double=True),
        Candidate("euc_jp", japanese, kana, double=True),
        Candidate("euc_kr", _ideographs("euc_kr", range(0xB0, 0xC9)) | points, korean, double=True),
        Candidate("cp1255", hebrew, hebrew),
        # the letters of one Cyrillic encoding are letters of another, but small ones are capitals there
        Candidate("cp1251", cyrillic, russian),
        Candidate("koi8_r", cyrillic, russian),
        Candidate("cp866", cyrillic, russian),
        Candidate("iso8859_5", cyrillic, russian),
        Candidate("cp1253", greek, frozenset("αοιετνσρηςπυκμλγδθίόάέή")),
        Candidate("cp1256", arabic, frozenset("اليمنروتبعدسفكه")),
        Candidate("tis_620", thai, frozenset("านรกอเงมยลวดทสตะปบคหแจพชขใไ่้ิีัุ็์")),
    )


def _ideographs(encoding: str, leads: Iterable[int], first: int = 0xA1) -> frozenset[str]:
    """Return the characters of two bytes with these first bytes, in an encoding that sorts frequent ones there."""
    pairs = (bytes((lead, trail)) for lead in leads for trail in range(first, 0xFF))
    return frozenset(char for pair in pairs if len(char := pair.decode(encoding, "ignore")) == 1)
