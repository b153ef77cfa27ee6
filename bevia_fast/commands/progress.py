"""A progress bar on standard error during a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column

from ..reporter import Progress
from .console import NARROW, PlainConsole


class ShownProgress(Progress):
    """Shows progress as a bar. It is on standard error, so that the results can be redirected."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.task = bar, bar.add_task("Starting", total=None)
        self.words, self.index, self.count = ["", "Starting", ""], 0, 1

    def stage(self, what: str) -> None:
        self._show(["", what, ""] if self.count == 1 else [self.words[0], what, ""])
        if self.count == 1:
            self.bar.update(self.task, total=None)

    def advance(self, done: float, total: float, what: str = "") -> None:
        self._show([*self.words[:2], what])
        self.bar.update(self.task, completed=(self.index + done / total) / self.count, total=1)

    def part(self, index: int, count: int, what: str) -> None:
        self.index, self.count = index, count
        self._show([what, "", ""])
        self.bar.update(self.task, completed=index / count, total=1)

    def _show(self, words: list[str]) -> None:
        self.words = words
        self.bar.update(self.task, description=": ".join(filter(None, words)))


@contextmanager
def progress() -> Iterator[ShownProgress]:
    """Show a bar during a long task; show nothing if standard error is not a terminal."""
    console = PlainConsole(stderr=True)
    with Bar(*columns(console.width), console=console, transient=True, disable=not console.is_terminal,
             expand=True) as bar:  # fmt: skip
        yield ShownProgress(bar)


def columns(width: int) -> list[ProgressColumn]:
    """Return what a bar consists of on a terminal with so many columns. Words give way before figures; a narrow
    terminal shows a percentage instead of a bar."""
    words = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    if width < NARROW:
        return [words, TaskProgressColumn(), TimeElapsedColumn()]
    return [SpinnerColumn(style="none"), words, BarColumn(bar_width=20), TimeElapsedColumn()]
