"""Run an experiment: one cell after the other, each stored as soon as it is done, so that an interruption costs one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UserError
from ..files import reading, write_atomically, writing
from ..kernels.contract import Backend
from ..naming import option
from ..runs.modelfile import save_model
from .cells import Text, run_cell, train_cell
from .experiments import Arm, Experiment

FIRST_SEED = 1
RUNNING = "cells"  # the subfolder of the cells that are done


@dataclass(frozen=True)
class Asked:
    """What was asked for: which experiment, how large, and for how long."""

    name: str
    experiment: Experiment
    seeds: int
    steps: int  # 0: those of the experiment
    minutes: float  # after which no further seed is begun; 0: no limit
    pages: bool = False  # keep the models of the first seed, for a page of each arm

    @property
    def length(self) -> int:
        return self.steps or self.experiment.base.steps

    def cells(self) -> Iterator[tuple[Arm, float, int]]:
        """Yield the cells, seed by seed, so that what is done after a while can be compared."""
        for seed in range(FIRST_SEED, FIRST_SEED + self.seeds):
            for rate in self.rates:
                for arm in self.experiment.arms:
                    if rate in self.experiment.rates_of(arm):
                        yield arm, rate, seed

    @property
    def rates(self) -> list[float]:
        """All learning rates that some arm is trained with, ascending."""
        return sorted({rate for arm in self.experiment.arms for rate in self.experiment.rates_of(arm)})

    def model_path(self, folder: Path, arm: Arm, rate: float) -> Path:
        """Return the file of an arm's model at a rate, trained with the first seed."""
        return folder / RUNNING / f"{self.experiment.arms.index(arm)}-{rate:g}-{FIRST_SEED}.safetensors"

    def fingerprint(self, text: Text) -> str:
        """Return a hash of all that the result of a cell depends on, but for its arm, rate and seed."""
        about = json.dumps([asdict(self.experiment), self.length, text.vocabulary], default=str, sort_keys=True)
        texts = (text, *text.others.values())
        parts = (about.encode(), *(part.tobytes() for each in texts for part in (each.training, each.validation)))
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def run_experiment(
    asked: Asked, folder: Path, text: Text, backend: Backend,
    tell: Callable[[int, int, dict[str, Any]], None] = lambda number, count, cell: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train what is not yet in `folder`, and return the records of all whole seeds.

    `tell` is called after each cell. Raises CheckpointError if the folder holds another experiment or cannot be
    written, and UserError if not even one seed fits into the minutes.
    """
    stamp = {"experiment": asked.name, "fingerprint": asked.fingerprint(text)}
    _claim(folder, stamp)
    began, found, per_seed = time.monotonic(), list[dict[str, Any]](), len(list(asked.cells())) // asked.seeds
    for number, (arm, rate, seed) in enumerate(asked.cells()):
        path = folder / RUNNING / f"{asked.experiment.arms.index(arm)}-{rate:g}-{seed}.json"
        cell, model = _stored(path), asked.model_path(folder, arm, rate)
        keeps_model = asked.pages and seed == FIRST_SEED
        if cell is None or (keeps_model and not model.exists()):
            late = asked.minutes and time.monotonic() - began > 60 * asked.minutes
            if late:
                break
            if keeps_model:
                cell, trainer = train_cell(asked.experiment, arm, rate, seed, text, backend, asked.steps)
                tokenizer = text.of(trainer.config).tokenizer
                save_model(model, trainer.weights, tokenizer, cell.get("diverged_at", asked.length))
            else:
                cell = run_cell(asked.experiment, arm, rate, seed, text, backend, asked.steps)
            write_atomically(path, json.dumps(cell).encode())
        found.append(cell)
        tell(number + 1, per_seed * asked.seeds, cell)
    whole = len(found) // per_seed * per_seed
    if not whole:
        raise UserError(
            f"{asked.minutes:g} minutes are not enough for one seed: {len(found)} of {per_seed} runs are done. The "
            "same command goes on where it was."
        )
    return found[:whole]


def _claim(folder: Path, stamp: dict[str, str]) -> None:
    """Make the folder, or check that it holds the same experiment."""
    path = folder / RUNNING / "experiment.json"
    if path.exists():
        with reading(path):
            held = path.read_text("utf-8")
        if held != json.dumps(stamp):
            raise CheckpointError(
                f"{folder} holds another experiment, or the same one with other options or another text; name another "
                f"folder with {option('out')}."
            )
        return
    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(stamp).encode())


def _stored(path: Path) -> dict[str, Any] | None:
    """Return the record of a cell that is done, or None."""
    if not path.exists():
        return None
    with reading(path):
        content = path.read_text("utf-8")
    try:
        found = json.loads(content)
        return found if isinstance(found, dict) and found.keys() >= {"arm", "rate", "seed", "val_loss"} else None
    except ValueError:
        return None  # damaged: it is computed again
