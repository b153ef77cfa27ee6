"""The playbook as one file: complete, without scripts, and without anything from elsewhere."""

from __future__ import annotations

import re
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bevia_fast.commands.main import main
from bevia_fast.playbook.chapters import read_chapters
from bevia_fast.playbook.formulas import put_back, take_out
from bevia_fast.playbook.page import build

pytest.importorskip("latex2mathml")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and whether they are nested properly."""

    EMPTY = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY and (not self.open or self.open.pop() != tag):
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def of(self, tag: str, attribute: str) -> list[str]:
        return [attributes.get(attribute) or "" for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return build()


def test_the_page_is_well_formed_and_complete(page: str) -> None:
    elements, chapters = Elements(page), read_chapters()
    assert elements.wrong == []
    assert elements.open == []
    assert elements.of("section", "id") == [chapter.name for chapter in chapters]
    assert len(elements.of("h1", "id")) == len(chapters)
    assert len(elements.of("img", "src")) == sum(len(chapter.figures) for chapter in chapters)
    assert all(elements.of("img", "alt"))
    assert len(elements.of("details", "id")) == sum(chapter.text.count("<details") for chapter in chapters)


def test_nothing_comes_from_elsewhere(page: str) -> None:
    elements = Elements(page)
    assert not elements.of("script", "src")
    assert not elements.of("link", "href")
    assert all(source.startswith("data:image/svg+xml;base64,") for source in elements.of("img", "src"))
    ids = set(elements.of("section", "id"))
    assert {link.removeprefix("#") for link in elements.of("a", "href")} <= ids
    assert "default-src 'none'" in page
    assert len(page) < 4_000_000


def test_formulas_are_mathml(page: str) -> None:
    prose = re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert "$" not in prose
    assert "\\" not in re.sub(r"<[^>]+>", "", prose)
    assert page.count("<math") > 150


def test_formulas_in_code_stay() -> None:
    text, formulas = take_out("a $x_1$ b `$y$` c\n```sh\necho $z $w\n```\n$$q$$")
    assert len(formulas) == 2
    assert "`$y$`" in text
    assert "echo $z $w" in text
    assert put_back(text, formulas).count("<math") == 2
    assert 'display="block"' in formulas[1]


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str) -> None:
    assert main(["playbook", "--out", str(tmp_path / "p.html")]) == 0
    assert (tmp_path / "p.html").read_text("utf-8") == page
    assert "p.html" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["p.html"]


def test_the_command_opens_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    assert main(["playbook", "--out", str(tmp_path / "p.html"), "--open"]) == 0
    assert opened == [(tmp_path / "p.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere/p.html"], "there is no folder nowhere"),
        (["--out", "-", "--open"], "cannot open standard output"),
        (["--out", ""], "--out"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["playbook", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml", None)
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert main(["playbook", "--out", str(tmp_path / "p.html")]) == 2
    assert "pip install 'bevia-fast[playbook]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
