"""What is told about a run while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import TrainConfig

Record = dict[str, Any]  # a line of metrics.jsonl


class Reporter:
    """What is told about a run while it goes on. This one keeps silent; see `commands.console`."""

    def start(self, config: TrainConfig) -> None:
        """All input is good."""

    def fact(self, name: str, value: str) -> None:
        """Something to know about the run."""

    def compiling(self, operation: str, number: int, total: int) -> None:
        """An operation is being compiled for this CPU, the one number `number` of `total`: half a minute in all."""

    def compiled(self) -> None:
        """All that training needs is compiled. Told even if it was before."""

    def counting(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Something takes a while for a large text: call the function with the bytes done of `total`; 0: not known."""
        return contextlib.nullcontext(lambda done: None)

    def step(self, record: Record) -> None:
        """A step is done; step 0 is the evaluation before the first."""

    def sample(self, step: int, text: str) -> None:
        """What the model writes after `step`."""

    def note(self, text: str) -> None:
        """Something is not as it should be, and the run goes on."""

    def interrupted(self) -> None:
        """Ctrl-C was pressed, or the like; the step in hand is being finished."""

    def saved(self, count: int, size: int, seconds: float, of: float) -> None:
        """The run was saved `count` times; a checkpoint has `size` bytes, all took `seconds` of `of` seconds."""

    def end(self, folder: Path | None, interrupted: int) -> None:
        """The run is over, and saved in `folder`; None if it failed. `interrupted`: the number of the signal that ended
        it before its last step; 0: none did."""


class Progress:
    """Told what is going on; this one keeps silent. See `commands.progress`."""

    def stage(self, what: str) -> None:
        """Something begins that may take a while."""

    def advance(self, done: float, total: float, what: str = "") -> None:
        """How much of the stage is done, and what is on its turn."""

    def part(self, index: int, count: int, what: str) -> None:
        """What follows is one of `count` parts, the first of which is 0; `what` says which."""
