"""The chapters: their titles, the code that they quote, their plain loops and their examples.

A chapter is Markdown. Five things in it mean something, and the tests hold each of them against the code:

    In `PATH`, `function`:                 a quotation: whole lines, which occur once in that function (```py)
    <!-- twin: NAME -->                    a function NAME in plain loops, the twin of what the engine does (```python)
    >>> expression                         an example with its result (```pycon)
    ![caption](figures/NAME.svg)           a picture whose data are compared; see `figures`
    <!-- lab: NAME -->                     a sentence about a result of the lab; see `measured`
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent  # a checkout may be installed as links to its files
ROOT = HERE.parents[1]  # of a checkout
QUOTATION = re.compile(r"^In `([\w/.]+\.py)`, `([\w.]+)`:\n\n```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TWIN = re.compile(r"^<!-- twin: (\w+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIGURE = re.compile(r"^!\[([^\]]*)\]\(figures/([\w-]+)\.svg\)", re.MULTILINE)


@dataclass(frozen=True)
class Quotation:
    """Lines of the engine's code that a chapter shows. `path` is relative to the checkout."""

    chapter: str
    path: str
    function: str  # its name, or Class.method
    code: str

    def __str__(self) -> str:
        return f"{self.chapter}: {self.path}, {self.function}: {self.code.strip().splitlines()[0].strip()}"

    def lines(self, source: str) -> list[range]:
        """Return the line numbers, from 1, of every occurrence in the function; none if there is no such function.

        Indentation and blank lines do not count. `source` is the text of the file.
        """
        wanted = [line.strip() for line in self.code.splitlines() if line.strip()]
        node = find_function(ast.parse(source), self.function)
        if node is None or not wanted:
            return []
        text = source.splitlines()
        numbers = [n for n in range(node.lineno, (node.end_lineno or 0) + 1) if text[n - 1].strip()]
        lines = [text[n - 1].strip() for n in numbers]
        return [
            range(numbers[start], numbers[start + len(wanted) - 1] + 1)
            for start in range(len(lines) - len(wanted) + 1)
            if lines[start : start + len(wanted)] == wanted
        ]


@dataclass(frozen=True)
class Chapter:
    """One chapter. `name` is that of its file without .md."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """Its first heading."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @cached_property
    def quotations(self) -> list[Quotation]:
        """What it quotes from the code."""
        return [Quotation(self.name, path, function, code) for path, function, code in QUOTATION.findall(self.text)]

    @cached_property
    def twins(self) -> dict[str, str]:
        """The source of each function in plain loops."""
        return dict(TWIN.findall(self.text))

    @cached_property
    def examples(self) -> list[str]:
        """Its interactive examples, in order."""
        found: list[str] = EXAMPLE.findall(self.text)
        return found

    @cached_property
    def figures(self) -> list[str]:
        """The names of its pictures."""
        return [name for _, name in FIGURE.findall(self.text)]


def folder() -> Path:
    """Return the folder of the chapters: installed beside this file, or in the docs of a checkout."""
    installed = HERE / "chapters"
    return installed if installed.is_dir() else ROOT / "docs" / "playbook"


def read_chapters() -> list[Chapter]:
    """Return all chapters in their order. The introduction, index.md, is the first; the results of the lab are last."""
    paths = [folder() / "index.md", *sorted(folder().glob("[0-9]*.md")), folder() / "lab.md"]
    return [Chapter(path.stem, path.read_text("utf-8")) for path in paths]


def find_function(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """Return the function `name`, or the method Class.name, of a module."""
    body: list[ast.stmt] = tree.body
    *classes, last = name.split(".")
    for each in classes:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == each), [])
    return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == last), None)
