"""Encodings, compression, line ends and normal forms; what is said about texts that are not what was expected."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import unicodedata
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
from small_runs import Acting, result, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.config import TrainConfig
from bevia_fast.data import tokenfile
from bevia_fast.data.decoding import STARTERS, Form, composed, plain_newlines
from bevia_fast.data.guessing import likely_encoding
from bevia_fast.data.sources import TextSource, sources, text_blocks, text_size, text_source
from bevia_fast.data.tokenfile import coded_text
from bevia_fast.errors import ConfigError, DataError
from bevia_fast.runs import checkpoint

pytestmark = pytest.mark.usefixtures("typed")

LANGUAGES = {
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits ; créée déjà à l’été, où ?",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Größer als üblich, «schön», Äpfel, Straße.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Zażółć gęślą jaźń.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Příliš žluťoučký kůň.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "tw": "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}
ENCODINGS = [
    ("fr", "cp1252"), ("fr", "mac_roman"), ("de", "cp1252"), ("de", "cp850"), ("de", "mac_roman"), ("pl", "cp1250"),
    ("pl", "iso8859_2"), ("ru", "iso8859_5"), ("cs", "cp1250"), ("zh", "gb18030"), ("zh", "gb2312"), ("tw", "big5"),
    ("ja", "shift_jis"), ("ja", "euc_jp"), ("ko", "euc_kr"), ("ru", "cp1251"), ("ru", "koi8_r"), ("ru", "cp866"),
    ("el", "cp1253"), ("he", "cp1255"), ("ar", "cp1256"), ("th", "tis_620"), ("fr", "utf-16"), ("zh", "utf-16"),
    ("zh", "utf-16-le"), ("zh", "utf-16-be"), ("fr", "utf-16-be"), ("ru", "utf-32"), ("ja", "utf-32-le"),
]  # fmt: skip


def write(folder: Path, data: bytes, name: str = "a.txt") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def read(path: str, form: Form | None = None) -> str:
    return "".join(text_blocks(TextSource([path], form=form or Form())))


# ----------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(("language", "encoding"), ENCODINGS)
@pytest.mark.parametrize("begin", ["", "Chapter 1\n\n"])
def test_the_likely_encoding_is_named_and_reads_the_text(
    tmp_path: Path, language: str, encoding: str, begin: str
) -> None:
    text = begin + LANGUAGES[language] + "\n"
    path = write(tmp_path, (text * 3).encode(encoding))
    with pytest.raises(DataError) as caught:
        read(path)
    error = str(caught.value)
    assert error.startswith(f"{path} is not UTF-8")
    assert error.count("add --encoding ") == 1
    named = error.rpartition("--encoding ")[2].rstrip(".")
    assert named == {"gb2312": "gb18030"}.get(encoding, encoding)
    assert read(path, Form(named)) == text * 3


def test_the_error_shows_the_text_in_the_likely_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "un café\x1b au lait, s’il te plaît".encode("cp1252"))
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path} is not UTF-8: byte 6 is 0xe9 (invalid continuation byte); in cp1252 it reads 'fé\\x1b au lait, s’il te"
        "': if that is so, add --encoding cp1252."
    )


def test_other_files_get_no_wrong_advice(tmp_path: Path) -> None:
    """A damaged byte of a UTF-8 text, a byte that could be anything."""
    for data, message in (
        (LANGUAGES["ru"].encode() + b"\xff" + LANGUAGES["ru"].encode(), "what follows is UTF-8, so the file is dam"),
        ("“quoted” ".encode() + b"\xff" + "“quoted” ".encode(), "what follows is UTF-8"),
        (b"good\xff", "name that with --encoding"),
        (b"a\0b", r"is not text: byte 1 is 0, as in a binary file\."),
        (bytes(range(256)), r"is not text: byte 0 is 0, as in a binary file\."),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read(write(tmp_path, data))
        assert "add --encoding" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "real", "given", "message"),
    [
        ("zh", "utf-8", "gb2312", "is not GB2312: .* add --encoding utf-8"),
        ("zh", "gb18030", "big5", "is not big5: .* add --encoding gb18030"),
        ("fr", "cp1252", "utf-16-le", "is not UTF-16-LE"),
        ("fr", "utf-16-be", "cp1252", "is not cp1252 but UTF-16-BE; add --encoding utf-16-be"),
        ("fr", "utf-16-le", "utf-16", "is not UTF-16: .* add --encoding utf-16-le"),
        ("ru", "cp1251", "ascii", "is not ascii: .* add --encoding cp1251"),
    ],
)
def test_a_wrong_encoding_is_refused_too(tmp_path: Path, text: str, real: str, given: str, message: str) -> None:
    path = write(tmp_path, (LANGUAGES[text] + "...").encode(real, "ignore"))
    with pytest.raises(DataError, match=message):
        read(path, Form(given))


def test_the_middle_of_a_character_is_recognized_too(tmp_path: Path) -> None:
    """The first byte of Á is a letter of cp1252, and the second one is nothing there."""
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, "Ábaco, Ángel".encode()), Form("cp1252"))
    assert "is not cp1252: byte 1 is 0x81 " in str(caught.value)
    assert "; in UTF-8 it reads 'baco, Ángel': if that is so, add --encoding utf-8." in str(caught.value)


def test_a_mark_of_the_same_encoding_is_no_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in cp1252 it reads 'fé au lait'.* add --encoding cp1252\.$"):
        read(write(tmp_path, b"\xef\xbb\xbfcaf\xe9 au lait"))


def test_utf8_is_not_read_as_something_else(tmp_path: Path) -> None:
    for language, encoding in (("fr", "cp1252"), ("zh", "iso8859-1"), ("ru", "cp437")):
        with pytest.raises(DataError, match=f"is UTF-8, which {encoding} misreads; add --encoding utf-8"):
            read(write(tmp_path, LANGUAGES[language].encode()), Form(encoding))
    few = "né".encode()  # could be anything
    assert read(write(tmp_path, few), Form("cp1252")) == few.decode("cp1252")


def test_the_guess_needs_some_evidence() -> None:
    assert likely_encoding(b"") == likely_encoding(b"ascii") == likely_encoding(b"d\xff") == ""
    for language, unknown in (("ko", "johab"), ("he", "cp862")):
        assert likely_encoding(LANGUAGES[language].encode(unknown, "ignore")) == ""
    assert likely_encoding("fé".encode("cp1252")) == "cp1252"
    assert likely_encoding("你好世界".encode("gb2312")) == "gb18030"
    assert likely_encoding(b"\xa1" + "你好世界".encode("gb2312")) == "gb18030"  # from the middle of a character


def test_byte_order_marks_are_removed_in_every_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "gb18030"):
        mark = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else "\ufeff"
        assert read(write(tmp_path, (mark + "ab\ufeff\n").encode(encoding)), Form(encoding)) == "ab\ufeff\n"
    with pytest.raises(DataError, match=r"is empty\."):
        read(write(tmp_path, "".encode("utf-16")), Form("utf-16"))


@pytest.mark.parametrize("size", [2, 100])
def test_a_zero_is_no_text_in_utf_16_either(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, "ab\0c".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"is not text: character 3 is a zero, as in a binary file\."):
        "".join(text_blocks(TextSource([path], form=Form("utf-16-le")), size))


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "hex", "undefined", "a\0b", "", "é", 5, None,
                                  "idna", "punycode", "unicode_escape", "raw-unicode-escape"])  # fmt: skip
def test_what_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--encoding is .*; it must be a text encoding that Python knows"):
        TrainConfig(encoding=name)


def test_synonyms_of_an_encoding_are_equal() -> None:
    assert TrainConfig(encoding="UTF8").encoding == "utf-8"
    assert TrainConfig(encoding="latin1") == TrainConfig(encoding="ISO-8859-1")


# --------------------------------------------------------------------------------------------------------- compression


def test_gzip_is_read_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its contents: of several members, without the extension, in folders, from standard input."""
    data = gzip.compress(b"one\n") + gzip.compress("zwölf\r\n".encode())
    for name in ("a.txt.gz", "book"):
        assert read(write(tmp_path, data, name)) == "one\nzwölf\r\n"
    assert read(str(tmp_path)) == "one\nzwölf\r\n"
    latin = write(tmp_path, gzip.compress("zwölf".encode("latin-1")))
    assert read(latin, Form("cp1252")) == "zwölf"
    with pytest.raises(DataError, match=r"is not UTF-8: byte 2 is 0xf6 .* --encoding cp1252\."):
        read(latin)
    with open(tmp_path / "book", "rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        assert read("-") == "one\nzwölf\r\n"
    with pytest.raises(DataError, match=r"is empty\."):
        read(write(tmp_path, gzip.compress(b"")))


def test_damaged_gzip_is_one_sentence(tmp_path: Path) -> None:
    data = gzip.compress(b"some text, and more of it\n" * 200)
    for broken in (data[:-9], data[:12], data[:40] + b"\xff\xff" + data[42:], data[:-8] + b"12345678", data + b"more"):
        with pytest.raises(DataError, match=r"^[^\n]* is a damaged gzip file: [^\n]*[^.]\.$"):
            read(write(tmp_path, broken))


def test_the_size_of_a_compressed_text_is_that_of_the_text(tmp_path: Path) -> None:
    """Whether it is kept in memory or on disk depends on it."""
    text = b"The cat sat on the mat.\n" * 10_000
    for name, data, size in (
        ("a.gz", gzip.compress(text), len(text)), ("a.txt", text, len(text)), ("b.gz", b"short", 5),
        ("c.gz", b"not compressed, but long", 24), ("d.gz", b"\x1f\x8b", 2),
    ):  # fmt: skip
        files = sources(TextSource([write(tmp_path, data, name)]))
        assert files is not None
        assert text_size(files) == size


def test_archives_and_documents_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    for data, message in (
        ((tmp_path / "a.zip").read_bytes(), "is a ZIP archive .*, not text; unpack it"),
        (bz2.compress(b"text"), "is compressed with bzip2, not text; unpack it"),
        (lzma.compress(b"text"), "is compressed with xz, not text; unpack it"),
        (b"%PDF-1.7\n", "is a PDF, not text; save it as plain text first"),
        (rb"{\rtf1 text}", "is an RTF document, not text; save it as plain text first"),
        (gzip.compress(gzip.compress(b"text")), "is compressed twice, not text; unpack it"),
    ):
        with pytest.raises(DataError, match=message):
            read(write(tmp_path, data))
    assert read(write(tmp_path, b"BZh is a word")) == "BZh is a word"


def test_there_may_be_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="There is no standard input"):
        read("-")


# ------------------------------------------------------------------------------------------------------------ newlines


def test_line_ends_are_kept_and_noted_or_made_plain(tmp_path: Path) -> None:
    for data, kind in ((b"a\r\nb\r\n", "Windows (CRLF)"), (b"a\rb\r", "old Macs (CR)")):
        path, notes = write(tmp_path, data), Acting()
        assert read(path) == data.decode()
        assert read(path, Form(newlines="lf")) == "a\nb\n"
        coded_text(TextSource([path]), notes)
        assert notes.notes == [
            f"the text has line ends of {kind}, which the model learns to write; --newlines lf makes them plain."
        ]
        notes = Acting()
        coded_text(TextSource([path], form=Form(newlines="lf")), notes)
        assert notes.notes == []
    assert "".join(plain_newlines(iter(["\r", "\n", "\n\r", "\r", "\na", "\r\n\r"]))) == "\n\n\n\na\n\n"


def test_lost_characters_and_marks_within_are_noted(tmp_path: Path) -> None:
    for text, said in (("caf\ufffd", "U+FFFD REPLACEMENT CHARACTER"), ("\ufeffone\n\ufefftwo", "U+FEFF")):
        notes = Acting()
        coded_text(TextSource([write(tmp_path, text.encode())]), notes)
        assert len(notes.notes) == 1
        assert said in notes.notes[0]


# --------------------------------------------------------------------------------------------------------- normal form


def test_decomposed_text_is_noted_or_composed(tmp_path: Path) -> None:
    for text in ("cafe\u0301 au lait", "\u1112\u1161\u11ab"):
        path, notes = write(tmp_path, text.encode()), Acting()
        assert read(path) == text
        assert read(path, Form(normalize="nfc")) == unicodedata.normalize("NFC", text) != text
        coded_text(TextSource([path]), notes)
        assert len(notes.notes) == 1
        assert "(NFD)" in notes.notes[0]
        assert "--normalize nfc" in notes.notes[0]
    notes = Acting()
    coded_text(TextSource([write(tmp_path, "ex\u0301 e\u0302".encode())], form=Form(normalize="nfc")), notes)
    assert notes.notes == []  # it is composed as far as it can be
    for text in ("café au lait", "ภาษาไทย", "हिन्दी", "한국어"):
        notes = Acting()
        coded_text(TextSource([write(tmp_path, text.encode())]), notes)
        assert notes.notes == []


def test_a_text_is_cut_only_where_nothing_combines() -> None:
    """No character before which it is cut is the second part of a composed one, or a mark."""
    ends = [part.split("-") for part in STARTERS.replace("-", "\t").split("\t")]
    assert ends  # the ranges themselves are read below
    ranges = [(0, 0x2FF), (0x400, 0x482), (0x3400, 0x9FFF), (0xAC00, 0xD7A3)]
    assert "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) == STARTERS

    def cuts(char: str) -> bool:
        return any(first <= ord(char) <= last for first, last in ranges)

    for point in range(sys.maxunicode + 1):
        char = chr(point)
        if cuts(char):
            assert unicodedata.combining(char) == 0
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert not cuts(chr(int(parts[1], 16)))


def test_composing_does_not_gather_the_whole_text() -> None:
    blocks = ["e", "\u0301", "中", "文", "\u0301\u0301", "x"]
    found = composed(iter(blocks))
    assert next(found) == "é"
    assert next(found) == "中"
    assert "".join(found) == "文\u0301\u0301x"


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_the_form_is_part_of_the_key_of_cached_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(tokenfile, "cache_folder", lambda: cache)
    monkeypatch.setattr(tokenfile, "IN_MEMORY", 0)
    path = write(tmp_path, "cafe\u0301\r\n".encode() * 500)
    forms = [Form(), Form(newlines="lf"), Form(normalize="nfc"), Form("utf-8-sig")]
    lengths = [len(coded_text(TextSource([path], form=form)).codes) for form in forms * 2]
    assert lengths == [7 * 500, 6 * 500, 6 * 500, 7 * 500] * 2
    assert len(list(cache.iterdir())) == 4
    notes = Acting()
    coded_text(TextSource([path]), notes)
    assert len(notes.notes) == 2  # also of cached tokens


def test_the_keys_of_earlier_versions_are_found() -> None:
    source = tokenfile.Source("/a.txt", 1, 2, 3, 4)
    assert tokenfile.entry_key([source], Form()) == "136129cfcaa1e481d96ed61c6faf386e"


def test_a_run_keeps_how_its_text_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    write(folder, "Der Bär läuft.\r\n".encode("cp1252") * 60, "a.MD")
    options = {"glob": ["*.md"], "encoding": "cp1252", "newlines": "lf", "normalize": "nfc", "steps": 4}
    whole = train(tiny_config(tmp_path, "whole", data=[str(folder)], **{**options, "steps": 8}))
    run = train(tiny_config(tmp_path, "run", data=[str(folder)], **options))
    assert "\r" not in run.tokenizer.alphabet
    assert "ä" in run.tokenizer.alphabet
    stored = (run.folder / "options.json").read_text("utf-8")
    for part in ('"encoding": "cp1252"', '"newlines": "lf"', '"normalize": "nfc"', '"*.md"'):
        assert part in stored
    resume = ["train", "--resume", str(run.folder), "--steps", "8"]
    assert main([*resume, "--encoding", "cp1250"]) == 0  # the same text, since ä is the same in both
    assert result(run.folder)[0] == 8
    assert whole.folder.exists()


def test_every_option_reaches_the_text() -> None:
    config = TrainConfig(data=["a"], glob=["*.md"], encoding="cp1252", newlines="lf", normalize="nfc")
    assert text_source(config) == TextSource(("a",), ("*.md",), Form("cp1252", "lf", "nfc"))


def test_a_run_resumes_only_with_the_same_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, b"one\r\ntwo\r\n" * 60)
    run = train(tiny_config(tmp_path, data=[path], steps=4, newlines="lf"))
    resume = ["train", "--resume", str(run.folder), "--steps", "6"]
    assert main([*resume, "--newlines", "keep"]) == 2
    assert "The text is not the one" in capsys.readouterr().err
    converted = write(tmp_path, b"one\ntwo\n" * 60, "converted.txt")
    assert main([*resume, "--newlines", "keep", "--data", converted]) == 0


def test_a_run_of_an_earlier_version_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoint has none of the options that say how the text is read."""
    whole = train(tiny_config(tmp_path, "whole", steps=8))
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint, "asdict",
            lambda of: {name: value for name, value in asdict(of).items() if name not in checkpoint.ADDED},
        )  # fmt: skip
        run = train(tiny_config(tmp_path, "run", steps=4))
    for path in (run.folder / checkpoint.CHECKPOINTS).iterdir():
        assert b"newlines" not in path.read_bytes()
    assert checkpoint.stored_config(run.folder).newlines == "keep"
    assert main(["train", "--resume", str(run.folder), "--steps", "8"]) == 0
    assert "newlines" in (run.folder / "options.json").read_text("utf-8")
    assert result(run.folder)[0] == result(whole.folder)[0] == 8


def test_what_earlier_versions_did_is_the_default() -> None:
    defaults = TrainConfig()
    assert checkpoint.ADDED["film"] == 0  # a run that began without a film goes on without one
    assert {name: getattr(defaults, name) for name in checkpoint.ADDED} == {**checkpoint.ADDED, "film": 16}
    of_an_update = {"optimizer", "muon_lr", "muon_momentum", "bias_correction", "ctx_schedule", "init", "tokens"}
    assert checkpoint.ADDED.keys() - of_an_update <= checkpoint.MAY_CHANGE
    assert not of_an_update & checkpoint.MAY_CHANGE
