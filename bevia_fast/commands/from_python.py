"""`train` as users of Python call it: it checks what it is given, and shows the run where someone watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from ..config import OLD_PRESETS, PRESETS, ModelConfig, TrainConfig
from ..errors import ConfigError, shown
from ..reporter import Reporter, Reporters
from ..runs.trained import Run
from ..training.loop import train as run_to_end


def train(
    config: TrainConfig | None = None,
    reporter: Reporter | Sequence[Reporter] | None = None,
    *,
    progress: bool | None = None,
) -> Run:
    """Train a model on text, write the results into a run folder, and return the run.

        run = train(TrainConfig(steps=200))
        print(generate(run, prompt="The "))

    The run is shown in a terminal (on standard error) and in a notebook (a bar and the curve of the losses), and not
    elsewhere. `progress=True` shows it everywhere, `progress=False` nowhere. A `reporter`, or several, receives its
    events besides, see `Reporter`.

    `train(resume("runs/1"))` continues a run. It ends with the same bits as if it had never been interrupted. Ctrl-C,
    or the interruption of the notebook's kernel, ends the run after the current step and saves it; `run.interrupted` is
    then not 0.

    Raises UserError, before anything is written, for options, a text or a checkpoint that cannot work. Raises
    StoppedRun if a loss or gradient is not finite, if a cross-check fails, or if the last save failed.
    """
    config = TrainConfig() if config is None else config
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"train takes a TrainConfig, not {shown(repr(config), 60)}; {_meant(config)}")
    reporters = _reporters(reporter)
    if progress not in (None, True, False):
        raise ConfigError(f"progress is {shown(repr(progress), 60)}; it must be True, False or None.")
    in_notebook = progress is not False and _in_a_notebook()
    if progress or (progress is None and (in_notebook or _at_a_terminal())):
        reporters.insert(0, _shown_in_a_notebook() if in_notebook else _shown_on_a_console())
    return run_to_end(config, reporters[0] if len(reporters) == 1 else Reporters(reporters))


def _meant(config: object) -> str:
    """Return what would be right, in a sentence of its own."""
    if isinstance(config, ModelConfig):
        return "the model is a part of it: train(TrainConfig(model=...))."
    if isinstance(config, dict):
        return "its options are arguments: train(TrainConfig(**options))."
    if isinstance(config, str) and config in {*PRESETS, *OLD_PRESETS}:
        return f"a preset makes one: train(preset({config!r}))."
    if isinstance(config, str | os.PathLike):
        return f"a text to train on is named in it: train(TrainConfig(data={[str(config)]!r}))."
    return "train() uses the defaults, and train(TrainConfig(steps=200)) changes them."


def _reporters(given: object) -> list[Reporter]:
    if given is None:
        return []
    found: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    for each in found:
        if isinstance(each, type) and issubclass(each, Reporter):
            raise ConfigError(f"reporter is the class {each.__name__}; it must be an object of it: {each.__name__}().")
        if not isinstance(each, Reporter):
            raise ConfigError(f"reporter is {shown(repr(each), 60)}; it must be a Reporter, or a list of them.")
    return found


def _at_a_terminal() -> bool:
    ask = getattr(sys.stderr, "isatty", None)  # missing if nothing is there, as in a program without a console
    try:
        return ask is not None and bool(ask())
    except ValueError:  # closed
        return False


def _in_a_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


def _shown_in_a_notebook() -> Reporter:
    from ..notebook import NotebookReporter

    return NotebookReporter()


def _shown_on_a_console() -> Reporter:
    from .console import ConsoleReporter, PlainConsole, Steadfast

    stream: TextIO | None = sys.stderr  # so that it does not mix with what the program prints
    if stream is None:  # a program without a console
        return Reporter()
    return ConsoleReporter(PlainConsole(file=Steadfast(stream, only_to_watch=True)))
