"""How long a run is: so many steps, or a time from which they follow."""

from __future__ import annotations

from dataclasses import replace

from ..config import TrainConfig, both_steps_and_minutes
from ..errors import UserError

LENGTHS = ("steps", "minutes", "hours")


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
