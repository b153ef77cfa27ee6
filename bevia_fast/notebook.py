"""A training run in a notebook: a bar, the curve of the losses and the newest sample, in the output of the cell."""

from __future__ import annotations

import base64
import contextlib
import importlib
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from .config import TrainConfig, token_unit
from .decorations import drawn
from .machine import readable
from .naming import command, resuming
from .reporter import Record, Reporter

SECONDS = 0.25  # between two updates; more often cannot be read
SHARE = 20  # a new curve waits at least this many times as long as the last one took to draw: 5 % of the time


class NotebookReporter(Reporter):
    """Shows a training run in Jupyter, VS Code or Colab; `train` chooses it there by itself.

    Raises ImportError where IPython is not installed.
    """

    def __init__(self) -> None:
        self._display = importlib.import_module("IPython.display").display
        self._handle: Any = None
        self._steps, self._unit = 1, "character"
        self._facts: list[str] = []
        self._notes: list[str] = []
        self._state, self._sample = "reading the text", ""
        self._records: list[Record] = []
        self._val_loss: float | None = None
        self._began = self._shown = self._draw_after = 0.0
        self._picture = b""
        self._drawn = 0  # records in the picture

    def start(self, config: TrainConfig) -> None:
        self._steps, self._unit = config.steps, token_unit(config.tokens)
        self._show()

    def fact(self, name: str, value: str) -> None:
        self._facts.append(f"{name:<9}{value}")

    def compiling(self, operation: str, number: int, total: int) -> None:
        self._state = f"compiling the kernels for this CPU: {operation}, {number} of {total}; later runs reuse them"
        self._show()

    @contextlib.contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        began = time.monotonic()

        def tell(done: int) -> None:
            if time.monotonic() - max(began, self._shown) >= SECONDS:
                self._state = f"{what}: {readable(done)}{f' of {readable(total)}' if total else ''}"
                self._show()

        yield tell

    def step(self, record: Record) -> None:
        now = time.monotonic()
        if not self._records:
            self._began = now
        self._records.append(record)
        if record["val_loss"] is not None:
            self._val_loss = record["val_loss"]
        if now - self._shown >= SECONDS or record["val_loss"] is not None:
            self._state = self._progress(record, now - self._began)
            if now >= self._draw_after:
                self._draw()
            self._show()

    def sample(self, step: int, text: str) -> None:
        self._sample = f"After step {step:,}:\n{text}"
        self._show()

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._show()

    def interrupted(self) -> None:
        self.note("Finishing this step and saving; interrupt again to stop at once.")

    def best(self, step: int, words: str) -> None:
        self._state += f"\nbest {words}"

    def end(self, folder: Path | None, interrupted: int) -> None:
        if folder is None:
            self._state += "; stopped"
        else:
            done = f"Interrupted; saved in {folder}." if interrupted else f"Saved in {folder}."
            go_on = f"Resume with: {resuming(folder)}" if interrupted else f"Try: {command('generate', folder)}"
            self._state = f"{self._state}\n{done} {go_on}" if self._records else f"{done} {go_on}"
        if self._drawn < len(self._records) and self._draw_after < float("inf"):
            self._draw()
        self._show()

    def _progress(self, record: Record, seconds: float) -> str:
        """Return the step and its numbers in a line."""
        first, step = self._records[0]["step"], record["step"]
        parts = [f"step {step:,} of {self._steps:,}"]
        parts += [f"{name} {value:.4f}" for name, value in (("loss", record["loss"]), ("validation", self._val_loss))
                  if value is not None]  # fmt: skip
        if record["tokens_per_s"] is not None:
            parts.append(f"{record['tokens_per_s']:,.0f} tokens/s")
        if first < step < self._steps:
            parts.append(f"{_duration(seconds / (step - first) * (self._steps - step))} left")
        return " · ".join(parts)

    def _draw(self) -> None:
        def draw() -> bytes:
            from .plots import draw_losses, png

            return png(draw_losses(self._records, unit=self._unit))

        began = time.monotonic()
        picture = drawn("the picture of the losses", draw, self._notes.append)
        if picture is None:
            self._draw_after = float("inf")
            return
        self._picture = picture
        self._drawn = len(self._records)
        self._draw_after = time.monotonic() + SHARE * (time.monotonic() - began)

    def _show(self) -> None:
        self._shown = time.monotonic()
        view = _View(self._html(), "\n".join([self._state, *self._notes]))
        if self._handle is None:
            self._handle = self._display(view, display_id=True)
        else:
            self._handle.update(view)

    def _html(self) -> str:
        done = self._records[-1]["step"] if self._records else 0
        parts = [f'<progress value="{done}" max="{self._steps}" style="width: 100%"></progress>', _text(self._state)]
        parts += [_text(f"Note: {note}") for note in self._notes]
        if self._picture:
            data = base64.b64encode(self._picture).decode()
            parts.append(f'<img alt="the losses so far" style="max-width: 100%" src="data:image/png;base64,{data}">')
        parts += [_text(text) for text in ("\n".join(self._facts), self._sample) if text]
        return "".join(parts)


class _View:
    """What a cell shows: HTML, or a line of text where that cannot be shown."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text


def _text(text: str) -> str:
    return f'<pre style="white-space: pre-wrap">{escape(text)}</pre>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
