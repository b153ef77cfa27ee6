"""A progress bar on standard error during a measurement."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..reporter import Progress


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
    console = Console(file=sys.stderr)
    with Bar(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        yield ShownProgress(bar)
