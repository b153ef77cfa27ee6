"""From the bytes of a file to text: decompression, the encoding, the ends of lines, the normal form.

Everything works on blocks of any size, and the size changes neither the text nor the errors. What cannot be text is
refused, with the remedy.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import DataError, escaped
from ..naming import option
from .guessing import likely_encoding, marked_encoding, wide_encoding

MARK = "\ufeff"  # the byte order mark
GZIP = b"\x1f\x8b"  # no UTF-8 text starts so
START = 16  # bytes at the beginning of a file that tell what it is
SAMPLED = 16 << 10  # bytes that a guess of the encoding considers
SURE = 8  # characters beyond ASCII that make a file certainly UTF-8
QUOTED = 20  # characters that an error shows

UNPACK = "unpack it, and name its files or their folder with {data}"
CONVERT = "save it as plain text first"
# How files start that are not text, what they are, and what to do.
FORMATS = (
    (b"PK\x03\x04", "a ZIP archive or a document in one (.docx, .odt, .epub)", f"{UNPACK}, or {CONVERT}"),
    (b"%PDF-", "a PDF", CONVERT),
    (b"{\\rtf", "an RTF document", CONVERT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", CONVERT),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (b"\x1f\x9d", "compressed with compress", UNPACK),
    (GZIP, "compressed twice", UNPACK),
)
BZIP2_BLOCK = b"1AY&SY"  # follows "BZh" and a digit; "BZh" alone may be a word

# Characters before which a text can be cut: they never combine with those before them. Beyond ASCII and Latin letters,
# these are Cyrillic letters, ideographs and Hangul syllables, for texts that have neither spaces nor line ends.
STARTERS = "\0-\u02ff\u0400-\u0482\u3400-\u9fff\uac00-\ud7a3"
_STARTER = re.compile(f"[{STARTERS}]")


class Readable(Protocol):
    """A binary file or a stream, of which only `read` is needed."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Form:
    """What text the bytes of a file stand for."""

    encoding: str = "utf-8"
    newlines: Literal["keep", "lf"] = "keep"
    normalize: Literal["keep", "nfc"] = "keep"


def decoded(file: Readable, name: str, form: Form, size: int) -> Iterator[str]:
    """Yield the text of a file in blocks of about `size` bytes, none of them empty, without its byte order mark.

    A file that is compressed with gzip is decompressed. Raises DataError, which calls the file `name`, if it is not
    text in this encoding, and OSError if it cannot be read.
    """
    blocks = _decoded(_opened(file, name), name, form.encoding, size)
    if form.newlines == "lf":
        blocks = plain_newlines(blocks)
    if form.normalize == "nfc":
        blocks = composed(blocks)
    return blocks


# ---------------------------------------------------------------------------------------------------------------- bytes


class _Started:
    """A file whose first bytes were read and are read again."""

    def __init__(self, file: Readable) -> None:
        self._file, self.start = file, b""
        while len(self.start) < START and (block := file.read(START - len(self.start))):
            self.start += block
        self._rest = self.start

    def read(self, size: int, /) -> bytes:
        if self._rest:
            block, self._rest = self._rest[:size], self._rest[size:]
            return block
        return self._file.read(size)


class _Unzipped:
    """The decompressed bytes of a file; damage becomes one sentence."""

    def __init__(self, file: Readable, name: str) -> None:
        unread: Any = file  # gzip only reads it
        self._file, self._name = gzip.GzipFile(fileobj=unread, mode="rb"), name

    def read(self, size: int, /) -> bytes:
        try:
            block: bytes = self._file.read(size)
            return block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self._name} is a damaged gzip file: {str(error).rstrip('.')}.") from None


def _opened(file: Readable, name: str) -> _Started:
    """Return the uncompressed file. Raises DataError if it starts like something that is not text."""
    found = _Started(file)
    if found.start.startswith(GZIP):
        found = _Started(_Unzipped(found, name))
    for start, what, remedy in FORMATS:
        if found.start.startswith(start) and (start != b"BZh" or found.start[4:].startswith(BZIP2_BLOCK)):
            raise DataError(f"{name} is {what}, not text; {remedy.format(data=option('data'))}.")
    return found


# ------------------------------------------------------------------------------------------------------------- decoding


def _decoded(file: _Started, name: str, encoding: str, size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    wide = _has_zeros(encoding)
    utf8 = None if wide or encoding.startswith("utf") else _CheckUTF8()
    done, count, tail = 0, 0, b""  # bytes read, characters decoded, the last bytes read
    while True:
        block = file.read(size)
        if not wide and (zero := block.find(0)) >= 0:
            raise _not_text(file, name, encoding, _Place(block, zero, done, b""))
        pending = decoder.getstate()[0]  # the bytes of a character that this block completes
        try:
            text = decoder.decode(block, not block)
        except UnicodeError as error:  # without a place if UTF-16 lacks its mark
            first = error.start if isinstance(error, UnicodeDecodeError) else 0
            before = tail[: len(tail) - len(pending)][-1:]
            place = _Place(pending + block, first, done - len(pending), before)
            raise _undecodable(file, name, encoding, place, getattr(error, "reason", str(error))) from None
        if wide and "\0" in text:
            raise DataError(
                f"{name} is not text: character {count + text.index(chr(0)) + 1} is a zero, as in a binary file."
            )
        if count == 0:
            count, text = len(text), text.removeprefix(MARK)
        else:
            count += len(text)
        done, tail = done + len(block), (tail + block[-START:])[-START:]
        if text:
            yield text
        if utf8 is not None:
            utf8.read(block)
        if not block:
            break
    if utf8 is not None and utf8.found >= SURE:
        raise DataError(f"{name} is UTF-8, which {_shown(encoding)} misreads; add {option('encoding', 'utf-8')}.")


class _CheckUTF8:
    """Counts the characters beyond ASCII as long as all bytes are valid UTF-8, which no other encoding is by chance."""

    def __init__(self) -> None:
        self._decoder, self._valid, self.found = codecs.getincrementaldecoder("utf-8")(), True, 0

    def read(self, block: bytes) -> None:
        """Check the next bytes; the last ones are b""."""
        if self._valid:
            try:
                text = self._decoder.decode(block, not block)
                self.found += len(text) - len(text.encode("ascii", "ignore"))
            except UnicodeDecodeError:
                self._valid, self.found = False, 0


@dataclass(frozen=True)
class _Place:
    """A byte that is not text."""

    data: bytes  # what was read last
    first: int  # where the byte is in `data`
    start: int  # where `data` is in the file
    before: bytes  # the byte before `data`

    @property
    def offset(self) -> int:
        return self.start + self.first

    @property
    def neighbor(self) -> bytes:
        """The ASCII character before the byte, if there is one."""
        byte = (self.before + self.data[: self.first])[-1:]
        return byte if byte.isascii() else b""


def _has_zeros(encoding: str) -> bool:
    """Return whether text in this encoding contains zeros, as in UTF-16 and UTF-32; otherwise only binary files do."""
    return b"\0" in "a".encode(encoding)


def _not_text(file: _Started, name: str, encoding: str, zero: _Place) -> DataError:
    """Return the error for a zero: the file is binary, or in UTF-16 or UTF-32."""
    sample = zero.data[zero.first :][:SAMPLED]
    while len(sample) < SAMPLED and (block := file.read(SAMPLED - len(sample))):
        sample += block
    found = marked_encoding(file.start) or wide_encoding(sample, zero.offset)
    if found and found != encoding:
        return DataError(f"{name} is not {_shown(encoding)} but {_shown(found)}; add {option('encoding', found)}.")
    return DataError(f"{name} is not text: byte {zero.offset} is 0, as in a binary file.")


def _undecodable(file: _Started, name: str, encoding: str, bad: _Place, reason: str) -> DataError:
    """Return the error for a byte that cannot be decoded, with the encoding that the file is probably in.

    "Binary file" says more than the first wrong byte, so the rest of the file is searched for a zero.
    """
    sample, start = bad.data[bad.first :][:SAMPLED], bad.start + len(bad.data)
    while not _has_zeros(encoding) and (block := file.read(1 << 17)):
        if (zero := block.find(0)) >= 0:
            return _not_text(file, name, encoding, _Place(block, zero, start, b""))
        sample, start = sample + block[: SAMPLED - len(sample)], start + len(block)
    byte = f"byte {bad.offset} is 0x{sample[0]:02x} " if sample else ""
    error = f"{name} is not {_shown(encoding)}: {byte}({reason})"
    if encoding == "utf-8" and _mostly_utf8(sample):
        return DataError(f"{error}; what follows is UTF-8, so the file is damaged, or joined from different ones.")
    found = marked_encoding(file.start)
    if found == encoding or not found:
        found = _likely(sample, encoding, bad)
    if not found:
        return DataError(f"{error}; if it is in another encoding, name that with {option('encoding')}, such as cp1252.")
    skipped = b"" if _has_zeros(found) else bad.neighbor
    text = codecs.getincrementaldecoder(found)("replace").decode(skipped + sample).lstrip("\ufffd")[:QUOTED]
    remedy = f"if that is so, add {option('encoding', found)}."
    return DataError(f"{error}; in {_shown(found)} it reads '{escaped(text)}': {remedy}")


def _mostly_utf8(sample: bytes) -> bool:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    wrong = text.count("\ufffd")
    return sum(not char.isascii() for char in text) > 2 * wrong


def _likely(sample: bytes, encoding: str, bad: _Place) -> str:
    if encoding != "utf-8":
        rest = sample.lstrip(bytes(range(0x80, 0xC0)))  # the rest of a character
        with contextlib.suppress(UnicodeDecodeError):
            if not codecs.getincrementaldecoder("utf-8")().decode(rest).isascii():
                return "utf-8"
        if _has_zeros(encoding):
            return wide_encoding(sample, bad.offset)
    found = likely_encoding(bad.neighbor + sample)
    return "" if found == encoding else found


def _shown(encoding: str) -> str:
    return encoding.upper() if encoding.startswith(("utf", "gb")) else encoding


# ------------------------------------------------------------------------------------------------------------- newlines


def plain_newlines(blocks: Iterator[str]) -> Iterator[str]:
    """Yield the text with \\n for each \\r\\n (Windows) and each other \\r (old Macs)."""
    ended = False  # with a \r, which was replaced already; a \n after it belongs to it
    for block in blocks:
        text = block[1:] if ended and block[0] == "\n" else block
        ended = block[-1] == "\r"
        if text := text.replace("\r\n", "\n").replace("\r", "\n"):
            yield text


# ---------------------------------------------------------------------------------------------------------- normal form


def composed(blocks: Iterator[str]) -> Iterator[str]:
    """Yield the text in Unicode's normal form C: letters and their marks composed, where there is such a character."""
    rest: list[str] = []  # what the next block may combine with
    for block in blocks:
        cut = next((place for place in reversed(range(len(block))) if _STARTER.match(block, place)), -1)
        if cut >= 0:
            rest.append(block[:cut])
            if text := unicodedata.normalize("NFC", "".join(rest)):
                yield text
            rest.clear()
        rest.append(block[max(cut, 0) :])
    if text := unicodedata.normalize("NFC", "".join(rest)):
        yield text


# -------------------------------------------------------------------------------------------------------------- remarks


def remarks_on(characters: str, form: Form) -> Iterator[str]:
    """Yield what the characters of a text reveal about it that a user may not expect."""
    if "\r" in characters:
        of = "Windows (CRLF)" if "\n" in characters else "old Macs (CR)"
        remedy = f"{option('newlines', 'lf')} makes them plain."
        yield f"the text has line ends of {of}, which the model learns to write; {remedy}"
    if "\ufffd" in characters:
        yield "the text contains U+FFFD REPLACEMENT CHARACTER: characters were lost before, in a conversion."
    if MARK in characters:
        yield "the text contains U+FEFF, the mark of a file's start, as in files that were joined: they are kept."
    if form.normalize == "keep" and _is_decomposed(characters):
        yield (
            "the text contains letters whose marks are characters of their own (NFD), so a prompt must have them, too; "
            f"{option('normalize', 'nfc')} composes them."
        )


def _is_decomposed(characters: str) -> bool:
    """Return whether two of the characters can be composed into one."""
    marks = [char for char in characters if unicodedata.combining(char) or "\u1161" <= char <= "\u11c2"]
    return any(len(unicodedata.normalize("NFC", base + mark)) == 1 for mark in marks for base in characters)
