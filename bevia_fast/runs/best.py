"""The best model of a run: its weights at the evaluation with the lowest validation loss, as best.safetensors.

A checkpoint names the step of the best model so far. When a better one is written, the one before it moves to
RUN/checkpoints/best-<step>.safetensors and stays there as long as a checkpoint names it. So a run that resumes from any
of its checkpoints has the best model that belongs to it, wherever it was killed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from ..config import ModelConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError
from ..files import BEST, CHECKPOINTS, is_folder, mode, reading, sync_folder, writing
from ..model.parameters import Parameters
from .modelfile import save_model
from .tensorfile import open_tensors

EARLIER = re.compile(r"best-(\d{1,15})\.safetensors")


def earlier_path(run: Path, step: int) -> Path:
    """Return where an earlier best model, that of `step`, is kept."""
    return run / CHECKPOINTS / f"best-{step:08d}.safetensors"


def earlier_models(run: Path) -> list[tuple[int, Path]]:
    """Return (step, file) of the earlier best models of a run. Raises CheckpointError if they cannot be listed."""
    folder = run / CHECKPOINTS
    with reading(folder):
        found = [(EARLIER.fullmatch(path.name), path) for path in folder.iterdir()] if is_folder(folder) else []
    return sorted((int(match[1]), path) for match, path in found if match)


def save_best(run: Path, parameters: Parameters, tokenizer: Vocabulary, step: int, before: int | None) -> None:
    """Write the weights after optimizer step `step` as the best model, atomically.

    `before` is the step of the best model until now, which is kept; None if there is none. Raises CheckpointError; the
    best model until now then stays in its place.
    """
    new, place = earlier_path(run, step), run / BEST
    with writing(new):
        new.parent.mkdir(exist_ok=True)
    save_model(new, parameters, tokenizer, step)
    with writing(place):
        kept = None
        if before is not None and before != step and mode(place):
            kept = earlier_path(run, before)
        if kept:
            os.replace(place, kept)
        try:
            os.replace(new, place)
        except OSError:
            if kept:
                os.replace(kept, place)
            raise
        sync_folder(run)
        sync_folder(new.parent)


def restore_best(run: Path, parameters: Parameters, tokenizer: Vocabulary, best: int | None, step: int) -> bool:
    """Bring the best models of a run back to its checkpoint of `step`, whose best is that of step `best`, or None.

    `parameters` are the weights after `step`. Returns whether there is a best model, if there should be one; if not,
    its file is missing or damaged. Raises CheckpointError for a disk that fails.
    """
    place, there = run / BEST, best is not None
    if best is not None and step_of(place, parameters.config) != best:
        earlier = earlier_path(run, best)
        if step_of(earlier, parameters.config) == best:
            with writing(place):
                os.replace(earlier, place)
        elif step == best:
            save_model(place, parameters, tokenizer, step)
        else:
            there = False
    with writing(place):
        stale = [path for found, path in earlier_models(run) if found > step or found == best]
        if not there and mode(place):  # it belongs to a step that this run has not reached, or to none
            stale.append(place)
        for path in stale:
            os.unlink(path)
        if there or stale:
            sync_folder(run)
    return there or best is None


def remove_earlier(run: Path, needed: Collection[int | None]) -> None:
    """Remove the earlier best models that no checkpoint names any more. Raises CheckpointError."""
    for step, path in earlier_models(run):
        if step not in needed:
            with writing(path):
                os.unlink(path)


def step_of(path: Path, config: ModelConfig) -> int | None:
    """Return the step of an intact model file with these sizes; None if there is none."""
    try:
        with open_tensors(path) as file:
            step = file.about.get("step")
            return step if type(step) is int and file.about.get("config") == asdict(config) else None
    except CheckpointError:
        return None
