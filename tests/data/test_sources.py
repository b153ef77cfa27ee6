"""Reading text in blocks of any size."""

from __future__ import annotations

import errno
import gzip
import io
import os
import sys
import tempfile
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bevia_fast.data.decoding import Form
from bevia_fast.data.sources import BLOCK, PLAIN, TextSource, default_text, sources, text_blocks
from bevia_fast.errors import DataError

pytestmark = pytest.mark.usefixtures("typed")


def read(*paths: str, size: int = BLOCK) -> str:
    return "".join(text_blocks(TextSource(paths), size))


def test_a_file_is_kept_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffein\r\nTäxt\n\n".encode())
    assert read(str(path)) == "ein\r\nTäxt\n\n"


def test_files_are_joined_in_order_and_folders_sorted(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, text in (("b.txt", "2\n"), ("a/z.txt", "1"), ("c.md", "no"), ("d.txt", "")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    first = tmp_path / "first.txt"
    first.write_text("0")
    assert read(str(first), str(folder)) == "0\n1\n2\n"


def test_samples_of_runs_are_not_read(tmp_path: Path) -> None:
    for name in ("a.txt", "runs/1/metrics.jsonl", "runs/1/sample.txt", "runs/1/b.txt", "c/sample.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(str(tmp_path)) == "a.txt\nc/sample.txt\nruns/1/b.txt"
    assert read(str(tmp_path / "runs" / "1" / "sample.txt")) == "runs/1/sample.txt"  # named explicitly


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("über".encode())))
    assert read("-") == "über"


def test_the_default_text_is_pythons_reference() -> None:
    text = read()
    assert text == default_text()
    assert len(text) > 300_000
    assert "assignment" in text


def test_a_python_without_the_default_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="name a text with --data"):
        read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty\."),
        (b"\xef\xbb\xbf", r"is empty\."),
        (b"caf\xe9 au lait", "is not UTF-8: byte 3 is 0xe9"),
        (b"\xef\xbb\xbfcaf\xe9", "is not UTF-8: byte 6 is 0xe9"),
        (b"\xff\xfea\x00b\x00", r"is not UTF-8 but UTF-16; add --encoding utf-16\."),
        (b"\x7fELF\x00", "is not text: byte 4 is 0, as in a binary file"),
        (b"PK\x03\x04\x00", r"is a ZIP archive .*, not text; unpack it"),
    ],
)
def test_bad_files_are_named_with_the_byte(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(str(path))
    assert str(path) in str(caught.value)


def test_missing_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*nothing\.txt: No such file"):
        read(str(tmp_path / "nothing.txt"))
    with pytest.raises(DataError, match=r"contains no \*\.txt or \*\.txt\.gz file at any depth; it is empty\."):
        read(str(tmp_path))
    with pytest.raises(DataError, match="null byte"):
        read("a\0b")


def test_files_that_cannot_be_examined_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example in a folder that may be listed but not searched."""
    (tmp_path / "a.txt").write_text("text")
    stat = os.stat

    def forbidden(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("a.txt"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", forbidden)
    for use in (read, lambda path: sources(TextSource([path]))):
        with pytest.raises(DataError, match=r"Cannot read .*a\.txt: Permission denied\."):
            use(str(tmp_path))


# -------------------------------------------------------------------------------------------------------------- blocks


def simply(files: list[bytes]) -> str:
    """Do what `text_blocks` does, but with whole files; return the start of an error without the file name."""
    text = ""
    for data in files:
        if 0 in data and data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return " is not UTF-8 but UTF-"
        if 0 in data:
            return " is not "  # text or UTF-8, as the bytes after the 0 decide
        mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        try:
            part = data[mark:].decode()
        except UnicodeDecodeError as error:
            offset = mark + error.start
            return f" is not UTF-8: byte {offset} is 0x{data[offset]:02x} ({error.reason})"
        if not part:
            return " is empty."
        text += part if text.endswith("\n") or not text else "\n" + part
    return text


def outcome(files: list[bytes], size: int, form: Form = PLAIN) -> tuple[str, str]:
    """Return the text or the error, without the name of the file."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / str(number)) for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            Path(path).write_bytes(data)
        try:
            return "".join(text_blocks(TextSource(paths, form=form), size)), ""
        except DataError as error:
            found = str(error)
            for path in paths:
                found = found.removeprefix(path)
            return "", found


UTF8 = st.text("ab\n\ufeffé€😀").map(str.encode)
BROKEN = st.lists(st.sampled_from([b"a", b"\n", b"\0", b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\xe2\x82", b"\xf0\x9f\x98",
                                   b"\xed\xa0\x80", b"\xff", "é€😀".encode()])).map(b"".join)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.one_of(UTF8, BROKEN), min_size=1, max_size=4), st.integers(1, 9))
@example([b"\xff\xfea\0b\0"], 1)
@example([b"a\xe2\x82"], 2)
def test_any_block_size_gives_the_same_text_and_errors(files: list[bytes], size: int) -> None:
    """Errors include the positions of bytes."""
    text, error = outcome(files, size)
    assert (text, error) == outcome(files, BLOCK)
    wanted = simply(files)
    assert (error or text).startswith(wanted)
    assert error or text == wanted


FORMS = [Form(encoding, newlines, normalize) for encoding in ("utf-8", "utf-16", "utf-16-be", "gb18030", "cp1252")
         for newlines, normalize in (("keep", "keep"), ("lf", "nfc"))]  # type: ignore[misc]  # fmt: skip


@settings(max_examples=300)
@given(
    st.text("ae\r\n \u0301\u0323é中文한\u1112\u1161\u11ab", max_size=20), st.sampled_from(FORMS), st.integers(1, 9),
    st.binary(max_size=2), st.booleans(),
)  # fmt: skip
def test_any_block_size_gives_the_same_text_in_any_form(
    text: str, form: Form, size: int, more: bytes, zipped: bool
) -> None:
    data = text.encode(form.encoding, "ignore")
    if not more:
        wanted = data.decode(form.encoding)
        if form.newlines == "lf":
            wanted = "\n".join(wanted.replace("\r\n", "\n").split("\r"))
        if form.normalize == "nfc":
            wanted = unicodedata.normalize("NFC", wanted)
        found, error = outcome([gzip.compress(data) if zipped else data], size, form)
        assert found == wanted
        assert error == ("" if wanted else " is empty.")
    else:
        assert outcome([data + more], size, form) == outcome([data + more], BLOCK, form)


def test_blocks_are_small_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("äöü\n" * 1000)
    blocks = list(text_blocks(TextSource([str(path)] * 2), 10))
    assert all(0 < len(block) <= 10 for block in blocks)
    assert len(blocks) > 1000


# ------------------------------------------------------------------------------------------------------------- sources


def test_a_changed_file_is_another_source(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("before")
    seen = [sources(TextSource([str(path)]))]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("after!")  # of the same size
    os.utime(path, ns=(times[0], times[1] + 10**9))
    seen.append(sources(TextSource([str(path)])))
    os.utime(path, ns=times)  # set the time back
    seen.append(sources(TextSource([str(path)])))
    os.replace(path, tmp_path / "other.txt")
    path.write_text("after!")
    os.utime(path, ns=times)
    seen.append(sources(TextSource([str(path)])))
    assert all(one != other for number, one in enumerate(seen) for other in seen[:number])
    assert seen[-1] == sources(TextSource([str(path)]))


def test_a_folder_stands_for_its_files_and_a_stream_has_no_sources(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert [Path(source.path).name for source in sources(TextSource([str(tmp_path)])) or []] == ["a.txt", "b.txt"]
    assert sources(TextSource([str(tmp_path / "a.txt"), "-"])) is None
    assert sources(TextSource([os.devnull])) is None
    with pytest.raises(DataError, match=r"Cannot read .*nothing\.txt: No such file"):
        sources(TextSource([str(tmp_path / "nothing.txt")]))
