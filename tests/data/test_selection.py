"""Which files of a folder are read, and what is said about the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_runs import Acting

from bevia_fast.data.selection import reading, select
from bevia_fast.data.sources import TextSource, text_blocks
from bevia_fast.data.tokenfile import coded_text
from bevia_fast.errors import DataError

pytestmark = pytest.mark.usefixtures("typed")


class Telling(Acting):
    """Records the facts too."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[tuple[str, str]] = []

    def fact(self, name: str, value: str) -> None:
        self.facts.append((name, value))


def make(folder: Path, *names: str) -> str:
    """Write files whose text is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return str(folder)


def chosen(folder: str, *globs: str) -> list[str]:
    return [Path(name).relative_to(folder).as_posix() for name in select(folder, globs).files]


def test_the_case_of_an_extension_does_not_matter(tmp_path: Path) -> None:
    folder = make(tmp_path, "BOOK.TXT", "c.Txt", "a/d.txt", "e.TXT.GZ", "f.txt.bak", "txt")
    assert chosen(folder) == ["BOOK.TXT", "a/d.txt", "c.Txt", "e.TXT.GZ"]


def test_hidden_files_and_those_of_a_macs_zip_are_not_read(tmp_path: Path) -> None:
    folder = make(
        tmp_path, "a.txt", "._a.txt", ".hidden.txt", "__MACOSX/._a.txt", "__MACOSX/b.txt", ".git/c.txt", "x/.y/d.txt"
    )
    assert chosen(folder) == ["a.txt"]
    assert select(folder).described() == f"1 file of {folder}; ignored: 6 hidden (see --glob)"
    assert chosen(folder, "*") == ["a.txt"]
    assert chosen(folder, ".*.txt") == ["._a.txt", ".hidden.txt"]  # as in a shell
    assert chosen(folder, ".*.txt", "*.txt") == ["._a.txt", ".hidden.txt", "a.txt"]
    assert chosen(folder, ".git/*") == [".git/c.txt"]
    assert chosen(folder, ".*/*.txt") == [".git/c.txt", "x/.y/d.txt"]


@pytest.mark.parametrize(
    ("globs", "wanted"),
    [
        (["*.md"], ["A.MD", "a/b/c.md", "a/b.md"]),
        (["*.md", "*.RST"], ["A.MD", "a/b/c.md", "a/b.md", "d.rst"]),
        (["a/*.md"], ["a/b.md"]),
        (["b/*"], ["a/b/c.md"]),
        (["a/**/*.md"], ["a/b/c.md", "a/b.md"]),
        (["**/c.md"], ["a/b/c.md"]),
        (["[!a]*.rst"], ["d.rst"]),
        (["?.txt"], ["e.txt"]),
    ],
)
def test_patterns(tmp_path: Path, globs: list[str], wanted: list[str]) -> None:
    folder = make(tmp_path, "A.MD", "a/b.md", "a/b/c.md", "d.rst", "e.txt")
    assert chosen(folder, *globs) == wanted


def test_what_is_taken_and_what_is_not_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.txt", "b.txt", "c.md", "d.MD", "e.py", "LICENSE", "run/metrics.jsonl", "run/sample.txt")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "run")
    told = Telling()
    coded_text(TextSource([folder]), told)
    assert told.facts == [
        ("files", f"2 files of {folder}; ignored: 2 *.md, 1 *.jsonl, 1 *.py, 1 file without an extension, 1 linked "
                  "folder and 1 sample of a run (see --glob)")
    ]  # fmt: skip
    assert told.notes == []
    (tmp_path / "only").mkdir()
    make(tmp_path / "only", "a.txt", "b.txt")
    told = Telling()
    coded_text(TextSource([str(tmp_path / "only")]), told)
    assert told.facts == [("files", f"2 files of {tmp_path / 'only'}")]


def test_many_kinds_are_summed_up(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.txt", *(f"{number}.x{number}" for number in range(9)))
    assert select(folder).described().endswith("1 *.x4, 1 *.x5 and 3 others (see --glob)")
    for number in (7, 8):
        Path(folder, f"{number}.x{number}").unlink()
    assert select(folder).described().endswith("1 *.x4, 1 *.x5 and 1 other (see --glob)")


def test_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "c.txt").symlink_to(tmp_path / "a.txt")
    told = Telling()
    text = coded_text(TextSource([folder]), told)
    assert len(text.codes) == len("a.txt\na.txt")
    assert told.notes == [f"{tmp_path / 'b.txt'} is a link to nothing, so it is not read."]
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"contains no .* except a link to nothing, .*[bc]\.txt\."):
        select(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "b.txt")
    assert select(folder).described() == f"1 file of {folder}; ignored: 1 special file (see --glob)"


def test_a_folder_without_text_says_what_it_has(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.md", "b.md", "c.pdf")
    with pytest.raises(DataError, match=r"at any depth, only 2 \*\.md and 1 \*\.pdf; --glob '\*\.md' reads those\."):
        select(folder)
    (tmp_path / "b.md").unlink()
    (tmp_path / "d.pdf").touch()  # more frequent, but not text
    with pytest.raises(DataError, match=r"only 2 \*\.pdf and 1 \*\.md; --glob '\*\.md' reads those\."):
        select(folder)
    (tmp_path / "a.md").unlink()
    with pytest.raises(DataError, match=r"only 2 \*\.pdf\.$"):
        select(folder)
    with pytest.raises(DataError, match=r"contains no \*\.rst file at any depth, only 2 \*\.pdf\.$"):
        select(folder, ["*.rst"])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its files would be missing in silence."""
    folder, scandir = make(tmp_path, "a.txt", "closed/b.txt"), os.scandir

    def forbidden(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match=r"Cannot read .*closed: Permission denied\."):
        select(folder)
    (tmp_path / "closed").rename(tmp_path / ".closed")  # such as the trash of another user
    assert chosen(folder) == ["a.txt"]


def test_a_disk_error_without_a_number_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"^Cannot read a\.txt: it is broken\.$"), reading("a.txt"):
        raise OSError("it is broken")


def test_files_that_are_named_are_read_whatever_they_are_called(tmp_path: Path) -> None:
    make(tmp_path, ".hidden", "a.csv", "b.md", "c.html")
    paths = [str(tmp_path / name) for name in (".hidden", "a.csv", "b.md", "c.html")]
    assert "".join(text_blocks(TextSource(paths))) == ".hidden\na.csv\nb.md\nc.html"
    told = Telling()
    coded_text(TextSource(paths), told)
    assert told.notes == [
        f"{paths[1]} is read as it is, including its commas and quotes.",
        f"{paths[3]} is read as it is, including its tags.",
    ]
    make(tmp_path, "D.CSV.GZ")
    told = Telling()
    coded_text(TextSource([str(tmp_path / "D.CSV.GZ")]), told)
    assert told.notes == [f"{tmp_path / 'D.CSV.GZ'} is read as it is, including its commas and quotes."]


def test_a_pattern_without_a_folder_has_no_effect_and_this_is_said(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    told = Telling()
    coded_text(TextSource([str(tmp_path / "a.txt")], ["*.md"]), told)
    assert told.notes == ["--glob has no effect, because --data names no folder."]
