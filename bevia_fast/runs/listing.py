"""What can be said about a run from its options.json and metrics.jsonl, without opening its model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..config import SortName, TrainConfig
from ..errors import CheckpointError
from ..files import METRICS, is_folder, mode, reading, refuse_nul
from ..model.parameters import parameter_specs
from ..reporter import Record
from .folder import RUN_FILES, read_metrics
from .modelfile import run_of
from .trained import read_config

SLOWEST = 1e-6  # tokens per second; a smaller number in a damaged file must not become an infinite time


@dataclass(frozen=True)
class Curves:
    """A run's options, and the records of its steps."""

    folder: Path
    config: TrainConfig
    records: Sequence[Record]

    @classmethod
    def read(cls, path: str | Path) -> Curves:
        """Read a run folder, or the run that a model file or checkpoint is part of.

        Raises CheckpointError if there is no run, or if its options.json or metrics.jsonl is missing or damaged.
        """
        refuse_nul(path, "a run")
        folder = Path(path)
        with reading(folder):
            if not mode(folder):
                raise CheckpointError(f"There is no run {folder}.")
            if not any(mode(folder / name) for name in RUN_FILES):
                folder = run_of(folder) or folder
            if not is_folder(folder) or not any(mode(folder / name) for name in RUN_FILES):
                raise CheckpointError(f"{folder} is not a run: it has none of the files of one.")
        return cls(folder, read_config(folder), read_metrics(folder))

    def changed(self) -> datetime:
        """Return when the last record was written. Raises CheckpointError if that cannot be found out."""
        with reading(self.folder / METRICS):
            return datetime.fromtimestamp((self.folder / METRICS).stat().st_mtime)

    @property
    def tokens_per_step(self) -> int:
        return self.config.accumulate * self.config.batch * self.config.model.ctx

    def minutes(self) -> list[float]:
        """Return the minutes that the steps up to each record took, without evaluations and saving.

        A step without a speed, such as one that was skipped, counts as 0.
        """
        speeds = (record["tokens_per_s"] or 0.0 for record in self.records)
        seconds = (self.tokens_per_step / speed if speed > SLOWEST else 0.0 for speed in speeds)
        return [total / 60 for total in itertools.accumulate(seconds)]

    def over(self, axis: str) -> list[float]:
        """Return where each record is on the axis `steps`, `tokens` or `minutes`."""
        if axis == "minutes":
            return self.minutes()
        each = self.tokens_per_step if axis == "tokens" else 1
        return [each * record["step"] for record in self.records]

    @property
    def bytes_per_token(self) -> float | None:
        """How many bytes of the validation split a token stands for; None before the first evaluation, and in runs of
        earlier versions."""
        for record in self.records:
            loss, bits = record["val_loss"], record.get("val_bits_per_byte")
            if loss and isinstance(bits, int | float) and bits > 0:
                return float(loss / (math.log(2) * bits))
        return None

    def bits(self) -> float | None:
        """Return the lowest validation loss in bits per byte, None if it is not known."""
        best, size = self.best(), self.bytes_per_token
        return best[0] / (math.log(2) * size) if best and size else None

    def best(self) -> tuple[float, int] | None:
        """Return the lowest validation loss in nats per token and its first step; None before the first evaluation."""
        found = [(record["val_loss"], record["step"]) for record in self.records if record["val_loss"] is not None]
        return min(found, default=None)


@dataclass(frozen=True)
class Listed:
    """A subfolder of a folder of runs: what is known of its run, or why nothing is."""

    name: str
    date: datetime | None = None  # of the last record
    curves: Curves | None = None
    problem: str = ""

    @classmethod
    def read(cls, folder: Path) -> Listed:
        """Look at a folder, whatever is in it."""
        try:
            curves = Curves.read(folder)
            return cls(folder.name, curves.changed(), curves)
        except CheckpointError as error:
            return cls(folder.name, problem=str(error))

    @property
    def parameters(self) -> int:
        assert self.curves is not None
        return sum(spec.count for spec in parameter_specs(self.curves.config.model))

    @property
    def steps(self) -> int:
        """The optimizer steps that are done."""
        assert self.curves is not None
        return self.curves.records[-1]["step"] if self.curves.records else 0

    @property
    def minutes(self) -> float:
        assert self.curves is not None
        return (self.curves.minutes() or [0.0])[-1]

    def about(self) -> dict[str, Any]:
        """Return everything for JSON."""
        if self.curves is None:
            return {"run": self.name, "problem": self.problem}
        config, best = self.curves.config, self.curves.best()
        sizes = {name: getattr(config.model, name) for name in ("ctx", "dim", "layers", "heads")}
        assert self.date is not None
        return {
            "run": self.name, "parameters": self.parameters, **sizes, "batch": config.batch, "steps": self.steps,
            "planned_steps": config.steps, "best_loss": best and best[0], "best_step": best and best[1],
            "tokens": config.tokens, "best_bits_per_byte": self.curves.bits(),
            "minutes": self.minutes, "date": self.date.isoformat(timespec="seconds"),
        }  # fmt: skip


def list_runs(parent: str | Path, sort: SortName = "name") -> list[Listed]:
    """Return what the subfolders of `parent` hold, without hidden ones. Those that hold no readable run come last.

    If `parent` is a run itself, return that one. Raises CheckpointError if it is not a folder that can be read.
    """
    refuse_nul(parent, "a folder")
    parent = Path(parent)
    with reading(parent):
        if not is_folder(parent):
            raise CheckpointError(f"There is no folder {parent}{', but a file of this name' if mode(parent) else ''}.")
        if any(mode(parent / name) for name in RUN_FILES):
            return [Listed.read(parent)]
        folders = [path for path in parent.iterdir() if not path.name.startswith(".") and is_folder(path)]
    found = sorted(map(Listed.read, folders), key=lambda one: _natural(one.name))
    return sorted(found, key=lambda one: (one.curves is None, _key(one, sort)))


def _key(one: Listed, sort: SortName) -> float:
    """Return what a run is sorted by after its name; equal runs stay in the order of their names."""
    if one.curves is None or sort == "name":
        return 0.0
    if sort == "loss":
        best = one.curves.best()
        return float("inf") if best is None else best[0]
    if sort == "bits":
        bits = one.curves.bits()
        return float("inf") if bits is None else bits
    if sort == "date":
        return -one.date.timestamp() if one.date else 0.0
    return -{"parameters": one.parameters, "steps": one.steps, "minutes": one.minutes}[sort]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that puts 2 before 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts]
