"""The stages of a context warm-up: first steps on short windows, then on longer ones, the last on the whole context.

Each stage takes as many tokens per step as the others: the batch grows as the window shrinks. So the learning rate, the
number of tokens in a number of steps, and the memory of a step mean the same in all of them; what a short window saves
is the time of attention, which grows with the square of its length.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from .errors import ConfigError, shown
from .naming import option

FORM = re.compile(r"(?:[1-9]\d{0,8}:[1-9]\d{0,12},)*[1-9]\d{0,8}", re.ASCII)


@dataclass(frozen=True)
class Stage:
    """A part of a run, from optimizer step `first` on, counted from 1."""

    first: int
    ctx: int
    batch: int


def stages(schedule: str, ctx: int, batch: int) -> list[Stage]:
    """Return the stages of a schedule such as 256:1000,1024:2000,4096 for a model with a context of `ctx`.

    `batch` is the number of sequences of `ctx` tokens in a batch. An empty schedule is one stage. Raises ConfigError
    for a schedule that cannot be.
    """
    if not schedule:
        return [Stage(1, ctx, batch)]
    name = option("ctx_schedule")
    if not FORM.fullmatch(schedule):
        raise ConfigError(
            f"{name} is {shown(repr(schedule), 60)}; it must be like 256:1000,1024:2000,4096: a context and its steps "
            "for each stage, and for the last one only a context."
        )
    *before, last = schedule.split(",")
    pairs = [(int(size), int(steps)) for size, steps in (part.split(":") for part in before)]
    sizes = [*(size for size, _ in pairs), int(last)]
    if sizes[-1] != ctx:
        raise ConfigError(f"{name} ends with a context of {sizes[-1]:,}; it must end with {option('ctx', ctx)}.")
    for shorter, longer in itertools.pairwise(sizes):
        if shorter >= longer:
            raise ConfigError(f"{name} has {shorter:,} before {longer:,}; each context must be longer than the last.")
    found, first = [], 1
    for size, steps in [*pairs, (ctx, 0)]:
        if batch * ctx % size:
            raise ConfigError(
                f"{name} has a context of {size:,}, of which no whole number makes the {batch * ctx:,} tokens of a "
                f"batch of {batch:,} x {ctx:,}."
            )
        found.append(Stage(first, size, batch * ctx // size))
        first += steps
    return found


def refuse_endless(schedule: str, ctx: int, batch: int, steps: int) -> None:
    """Raise ConfigError if a run of so many steps ends before the last stage of its schedule, or if the schedule cannot
    be."""
    last = stages(schedule, ctx, batch)[-1]
    if last.first > steps:
        raise ConfigError(
            f"{option('ctx_schedule')} comes to {option('ctx', ctx)} at step {last.first:,}; "
            f"{option('steps', steps)} ends before."
        )
