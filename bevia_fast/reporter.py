"""The interface through which a run or a measurement reports what it is doing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import TrainConfig

Record = dict[str, Any]  # a line of metrics.jsonl


class Reporter:
    """Receives the events of a training run. This base class ignores them all; see `commands.console`.

        class Losses(Reporter):
            def step(self, record):
                print(record["step"], record["loss"])

        train(TrainConfig(), Losses())
    """

    def start(self, config: TrainConfig) -> None:
        """The options and the text are valid; training is about to start."""

    def fact(self, name: str, value: str) -> None:
        """A fact about the run, such as ("text", "1,115,394 characters, 65 distinct")."""

    def compiling(self, operation: str, number: int, total: int) -> None:
        """`operation`, number `number` of `total`, is being compiled for this CPU; all of them take about 15 s."""

    def compiled(self) -> None:
        """All kernels are compiled; called even if they already were."""

    def counting(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Open a context for a task that takes long for a large text.

        The context gives a function to call with the number of bytes done, of `total` bytes; 0 if that is unknown.
        """
        return contextlib.nullcontext(lambda done: None)

    def step(self, record: Record) -> None:
        """A step is done; `record` is its line of metrics.jsonl. Step 0 is the evaluation before the first step."""

    def sample(self, step: int, text: str) -> None:
        """A text that the model wrote after `step`."""

    def note(self, text: str) -> None:
        """A warning; the run continues."""

    def interrupted(self) -> None:
        """Ctrl-C or a similar signal arrived; the current step is being finished."""

    def saved(self, count: int, size: int, seconds: float, of: float) -> None:
        """The run was saved `count` times: `size` bytes per checkpoint, `seconds` of `of` seconds in total."""

    def end(self, folder: Path | None, interrupted: int) -> None:
        """The run is over and saved in `folder`, or failed if that is None.

        `interrupted` is the number of the signal that ended the run before its last step, or 0.
        """


class Progress:
    """Receives the progress of a measurement. This base class ignores it; see `commands.progress`."""

    def stage(self, what: str) -> None:
        """A stage begins that may take a while."""

    def advance(self, done: float, total: float, what: str = "") -> None:
        """`done` of `total` of the stage is complete, and `what` comes next."""

    def part(self, index: int, count: int, what: str) -> None:
        """Part `index` of `count` begins, counted from 0; `what` describes it."""
