"""Showing a training run: a live progress bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.rule import Rule
from rich.table import Column
from rich.text import Text
from rich.theme import Theme

from ..config import TrainConfig
from ..errors import counted, escaped, reason
from ..machine import duration, readable
from ..naming import command, resuming
from ..reporter import Record, Reporter
from .pace import Pace

LINES = 10  # lines per run where there is no terminal, approximately
LINE_EVERY = 10.0  # seconds between lines during a long task
COMPILING = "compiling the kernels for this CPU; later runs reuse them ..."
NARROW, ROOMY = 60, 80  # characters: a narrower terminal has no bar; a roomy one has all figures
SHOW_AFTER = 1.0  # seconds before the progress of a task is shown


def printable(text: str) -> str:
    """Return text that is safe to print on a terminal: control characters other than newlines and tabs are escaped."""
    return escaped(text, "\n\t")


# rich's own colors include yellow, which nobody can read on a light background, and greys close to one or the other
READABLE = Theme({
    "progress.elapsed": "none", "progress.remaining": "none", "progress.percentage": "none", "bar.back": "bright_black",
    "progress.download": "none", "progress.filesize": "none", "progress.filesize.total": "none",
    "progress.data.speed": "none", "progress.spinner": "none",
})  # fmt: skip


class Steadfast:
    """A stream that goes on when it cannot be written, as on a full disk: training is worth more than what it prints.

    `problem` is the first failure. A reader that closes the pipe is none: that is an exception, unless the stream is
    there `only_to_watch`.
    """

    def __init__(self, stream: TextIO, only_to_watch: bool = False) -> None:
        self._stream, self._only_to_watch, self.problem = stream, only_to_watch, ""

    def write(self, text: str) -> int:
        with self._trying():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._trying():
            self._stream.flush()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as error:
            if not self._only_to_watch:
                raise
            self.problem = self.problem or reason(error)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self.problem = self.problem or getattr(error, "strerror", None) or reason(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class PlainConsole(Console):
    """A console that prints text as it is, and leaves a broken pipe to the command line."""

    def __init__(self, stderr: bool = False, file: Any = None) -> None:
        super().__init__(highlight=False, markup=False, stderr=stderr, file=file, theme=READABLE)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class CompileBar:
    """Shows the compilation of kernels: a bar on a terminal, one line elsewhere.

    After `stop`, `count` kernels were compiled in `seconds`.
    """

    def __init__(self, console: Console) -> None:
        from ..kernels.numba_jit._runtime import cache as kernel_cache

        self.started, self.count, self.seconds = time.perf_counter(), 0, 0.0
        self._compiled, self._before = kernel_cache.compiled, len(kernel_cache.compiled)
        bar = [BarColumn(bar_width=20)] if console.width >= ROOMY else []
        self.progress = Progress(
            TextColumn("compiling", table_column=Column(no_wrap=True)), *bar,
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            expand=True, console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self.progress.start()
        self.task = self.progress.add_task("")
        if not console.is_terminal:
            console.print(Text(COMPILING), soft_wrap=True)

    def show(self, operation: str, number: int, total: int) -> None:
        """Show that `operation`, number `number` of `total`, is being compiled."""
        self.progress.update(self.task, description=operation, completed=number - 1, total=total)

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self.started
        self.count = len(self._compiled) - self._before
        self.progress.stop()


class ConsoleReporter(Reporter):
    """Shows a training run on `console`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.progress: Progress | None = None
        self.compiler: CompileBar | None = None
        self.steps, self.piped = 1, False  # piped: the text came from standard input
        self.val_loss: float | None = None
        self.started = self.timed = 0.0
        self.pace: Pace | None = None  # with --minutes

    def _say(self, text: str, style: str = "") -> None:
        console = self.progress.console if self.progress else self.console
        console.print(Text(printable(text), style), soft_wrap=True)

    def start(self, config: TrainConfig) -> None:
        self.steps, self.piped = config.steps, "-" in config.data

    def fact(self, name: str, value: str) -> None:
        self._say(f"{name:<9}{value}")

    def compiling(self, operation: str, number: int, total: int) -> None:
        if self.compiler is None:
            self.compiler = CompileBar(self.console)
        self.compiler.show(operation, number, total)

    def compiled(self) -> None:
        if self.compiler is not None:
            self.compiler.stop()
            count, seconds = self.compiler.count, f"{self.compiler.seconds:.1f} s"
            self.fact("compiled", f"{counted(count, 'kernel')} for this CPU in {seconds}" if count
                                  else f"by another process; waited {seconds}")  # fmt: skip
            self.compiler = None

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        began, lines = time.monotonic(), 0
        with contextlib.ExitStack() as stack:
            bar: Progress | None = None

            def tell(done: int) -> None:
                nonlocal bar, lines
                seconds = time.monotonic() - began
                if seconds < SHOW_AFTER + (0.0 if self.live else LINE_EVERY * lines):
                    return
                if not self.live:
                    self._say(f"{what}: {readable(done)}{f' of {readable(total)}' if total else ''} ...")
                    lines += 1
                    return
                if bar is None:
                    bar = stack.enter_context(self._bar_of_bytes(what, total))
                bar.update(bar.task_ids[0], completed=done)

            yield tell

    def _bar_of_bytes(self, what: str, total: int) -> Progress:
        words = TextColumn(what, table_column=Column(no_wrap=True, overflow="ellipsis"))
        roomy: list[ProgressColumn] = [BarColumn(bar_width=None), TransferSpeedColumn(), TimeRemainingColumn()]
        bar = Progress(
            words, DownloadColumn(), *(roomy if self.console.width >= ROOMY else roomy[2:]), console=self.console,
            transient=True,
        )  # fmt: skip
        bar.add_task("", total=total or None)
        return bar

    def budget(self, seconds: float) -> None:
        self.pace = Pace(self.steps, seconds)

    def _open_bar(self) -> None:
        self.started = time.perf_counter()
        if self.live:
            self.progress = Progress(
                *_step_columns(self.console.width, self.pace is not None), console=self.console, transient=True,
                refresh_per_second=8,
            )  # fmt: skip
            self.progress.start()
            self.progress.add_task("", total=self.steps, loss="-", val="-", speed="-", pace="-")

    def step(self, record: Record) -> None:
        step, loss, speed = record["step"], record["loss"], record["tokens_per_s"]
        if self.started == 0.0:
            self._open_bar()
        if record["val_loss"] is not None:
            self.val_loss = record["val_loss"]
        if self.progress is not None:
            shown: dict[str, Any] = {"val": _number(self.val_loss)}
            if loss is not None:
                shown |= {"loss": _number(loss), "speed": f"{speed:,.0f}"}
            if self.pace:
                shown["pace"] = self.pace.at(step)
            self.progress.update(self.progress.task_ids[0], completed=step, **shown)
        if "crosscheck" in record:
            self._say(
                f"step {step:>6}  cross-check: largest relative difference {record['crosscheck']:.2g}, "
                f"in {record['crosscheck_tensor']}"
            )
        every = max(1, self.steps // LINES)
        if record["val_loss"] is not None or (not self.live and step % every == 0):
            self._line(record)

    def _line(self, record: Record) -> None:
        step = record["step"]
        line = f"step {step:>6}  loss {_number(record['loss'])}  val {_number(record['val_loss'])}"
        if step:
            seconds = time.perf_counter() - self.started
            speed = record["tokens_per_s"]  # None if the step was skipped
            line += f"  {'-' if speed is None else f'{speed:,.0f}':>9} tokens/s  {_elapsed(seconds):>8}"
            if self.pace:
                line += f"  pace {self.pace.at(step)}"
        self._say(line)

    def sample(self, step: int, text: str) -> None:
        console = self.progress.console if self.progress else self.console
        title = f"sample after step {step:,}" if step else "sample before the first step"
        console.print(Rule(title, align="left", style="none", characters="-"))
        console.print(Text(printable(text)), soft_wrap=True)
        console.print(Rule(style="none", characters="-"))

    def interrupted(self) -> None:
        self._say("Finishing this step and saving; press Ctrl-C again to stop at once.")

    def note(self, text: str) -> None:
        self._say(f"note     {text}")

    def saved(self, count: int, size: int, seconds: float, of: float) -> None:
        times = "once" if count == 1 else counted(count, "time")
        share = seconds / max(of, 1e-9)
        self.fact("saving", f"{times}, {readable(size)} each; {seconds:.2f} s, {share:.1%} of the time")

    def filmed(self, count: int, size: int, seconds: float, of: float) -> None:
        share = seconds / max(of, 1e-9)
        self.fact("film", f"{counted(count, 'frame')}, {readable(size)}; {seconds:.2f} s, {share:.1%} of the time")

    def best(self, step: int, words: str) -> None:
        self.fact("best", words)

    def end(self, folder: Path | None, interrupted: int) -> None:
        if self.compiler is not None:
            self.compiler.stop()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
        if folder is not None:
            if self.pace and not interrupted:
                self.fact("time", self.pace.ended())
            if interrupted:
                how = ", with the same text on standard input" if self.piped else ""
                self._say(f"Interrupted; saved in {folder}. Resume{how} with: {resuming(folder)}")
            else:
                self._say(f"Saved in {folder}. Try: {command('generate', folder)}")


def _step_columns(width: int, paced: bool = False) -> list[ProgressColumn]:
    """Return what the bar of a run shows on a terminal with so many columns: all of it, or what matters most.

    `paced`: also how well the run keeps to its time, instead of the speed unless there is room for both.
    """
    def whole() -> Column:
        return Column(no_wrap=True)  # so that the bar is what gives way

    count, bar = MofNCompleteColumn(table_column=whole()), BarColumn(bar_width=None)
    figures = "loss {task.fields[loss]}"
    if width >= NARROW:
        figures += "  val {task.fields[val]}"
    if width >= ROOMY and (not paced or width >= ROOMY + 20):
        figures += "  {task.fields[speed]} tokens/s"
    if width >= ROOMY and paced:
        figures += "  pace {task.fields[pace]}"
    return [
        TextColumn("step", table_column=whole()), count, *([bar] if width >= NARROW else []),
        TextColumn(figures, table_column=whole()), TimeRemainingColumn(compact=True, table_column=whole()),
        TextColumn("left", table_column=whole()),
    ]  # fmt: skip


def _elapsed(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def _number(value: float | None) -> str:
    return "     -" if value is None else f"{value:.4f}"
