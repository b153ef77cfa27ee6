"""How well a run keeps to the time that it was given."""

from __future__ import annotations

import time

from ..machine import duration

PACE_AFTER = 0.02  # of the steps: before that, the evaluation before the first step would count too much


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
