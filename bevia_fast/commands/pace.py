"""How well a run keeps to the time that it was given, and which options may give it one."""

from __future__ import annotations

import time
from dataclasses import replace

from ..config import TrainConfig, both_steps_and_minutes
from ..errors import UserError
from ..machine import duration

PACE_AFTER = 0.02  # of the steps: before that, the evaluation before the first step would count too much
LENGTHS = ("steps", "minutes", "hours")  # the options that say how long a run is


class Pace:
    """Compares the time of a run of so many steps with the seconds that it was planned to take."""

    def __init__(self, steps: int, planned: float) -> None:
        self.steps, self.planned, self.began = steps, planned, time.perf_counter()

    def at(self, step: int) -> str:
        """Return by how much the run will be longer or shorter than planned if it goes on as it did up to `step`."""
        if not step or step < PACE_AFTER * self.steps:
            return "-"
        expected = (time.perf_counter() - self.began) * self.steps / step
        return f"{expected / self.planned - 1:+.0%}"

    def ended(self) -> str:
        """Return how long the run took, in words."""
        took = time.perf_counter() - self.began
        return f"{duration(took)} of {duration(self.planned)} ({took / self.planned - 1:+.0%})"


def timed(start: TrainConfig, words: list[str]) -> TrainConfig:
    """Return the options that the words of a command line change, without the steps or minutes that they replace.

    Raises UserError if the words have both, or two times.
    """
    steps, minutes, hours = (any(word.startswith(f"--{name}=") for word in words) for name in LENGTHS)
    if minutes and hours:
        raise UserError("--hours cannot be combined with --minutes; give one of them.")
    if steps and (minutes or hours):
        raise both_steps_and_minutes("minutes" if minutes else "hours")
    if minutes or hours:
        return start if start.resume else replace(start, steps=TrainConfig.steps, minutes=0.0)
    return replace(start, minutes=0.0) if steps else start
