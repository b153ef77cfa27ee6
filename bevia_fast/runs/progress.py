"""How far a run has come: what a checkpoint holds besides weights, moments and options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..data.corpus import ORDER, ROUNDS
from .metrics import MOST_STEPS, is_finite, valid_record
from .modelfile import options_of
from .spikes import Spikes


@dataclass
class Best:
    """The evaluation with the lowest validation loss so far. That of step 0 counts if the run began with the weights of
    another one: an untrained model is nothing to keep."""

    step: int | None = None
    """The optimizer step after which it was; None if there is none yet."""
    loss: float | None = None
    """Its validation loss in nats per character; None if there is none yet."""
    since: int = 0
    """Evaluations since, of which none was lower."""


@dataclass
class Progress:
    """The state of a run besides its weights and moments."""

    step: int = 0
    skipped: int = 0
    """Steps skipped because their loss or gradient was not finite."""
    spikes: Spikes = field(default_factory=Spikes)
    unfinished: dict[str, Any] | None = None
    """The record of `step` for metrics.jsonl, as long as its evaluation is unfinished."""
    order: int = ORDER
    """The version of the order of batches that the run started with."""
    best: Best = field(default_factory=Best)


def read_progress(found: Any) -> Progress:
    """Return a Progress from parsed JSON. Raises KeyError, TypeError or ValueError if it is invalid."""
    if isinstance(found, dict):
        # checkpoints of the first order do not name it, and earlier versions knew no best model
        found = {"order": 1, "best": {"step": None, "loss": None, "since": 0}, **found}
    found = options_of(Progress, found)
    if type(found["order"]) is not int or found["order"] not in ROUNDS:
        raise ValueError("the order of batches is unknown")
    spikes = options_of(Spikes, found["spikes"])
    counts = found["step"], found["skipped"], spikes["count"]
    if not all(type(count) is int and 0 <= count < MOST_STEPS for count in counts):
        raise ValueError("a count is invalid")
    numbers = spikes["mean"], spikes["variance"]
    if not all(map(is_finite, numbers)) or numbers[1] < 0:
        raise ValueError("an average is invalid")
    record = found["unfinished"]
    if record is not None:
        complete = valid_record(record)
        if complete.keys() != record.keys() or record["step"] != found["step"]:
            raise ValueError("the unfinished step is invalid")
    best = _read_best(found["best"], found["step"])
    return Progress(**{**found, "spikes": Spikes(**spikes), "best": best})


def _read_best(found: Any, step: int) -> Best:
    """Return a Best of a run that has done `step` steps. Raises ValueError if it is invalid."""
    found = options_of(Best, found)
    counts = [found["since"]] if found["step"] is None else [found["since"], found["step"]]
    if not all(type(count) is int and 0 <= count < MOST_STEPS for count in counts):
        raise ValueError("a count of the best model is invalid")
    if (found["step"] is None) != (found["loss"] is None) or (found["step"] or 0) > step:
        raise ValueError("the step of the best model is invalid")
    if found["loss"] is not None and not is_finite(found["loss"]):
        raise ValueError("the loss of the best model is invalid")
    return Best(**found)
