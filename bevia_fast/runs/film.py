"""The film of a run: its weights at a few steps, for those who want to see how the model came about.

RUN/film/step-<step>.safetensors is a model file like the run's own, always in float32: every command that takes a model
reads it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..data.vocabulary import Vocabulary
from ..files import FILM, is_folder, reading, sync_folder, writing
from ..model.parameters import Parameters
from .checkpoint import NAME
from .modelfile import save_model

# The first frame after step 0 shows this share of the run. The steps before it belong to the warmup and change little.
BEGINS = 0.01


def film_steps(steps: int, frames: int) -> list[int]:
    """Return the steps of a run that its film shows: step 0, the last one, and others between them, evenly in log step.

    There are `frames` of them, or fewer if the run has few steps. One frame shows the last step.
    """
    if frames < 2:
        return [steps] * frames
    first, between = max(1.0, BEGINS * steps), max(1, frames - 2)
    found = [0]
    for index in range(between):
        step = round(first * (steps / first) ** (index / between))
        found.append(max(step, found[-1] + 1))
    return [step for step in found[: frames - 1] if step < steps] + [steps]


def frame_path(run: Path, step: int) -> Path:
    """Return the file of a step in a run's film."""
    return run / FILM / f"step-{step:08d}.safetensors"


def frames(run: Path) -> list[tuple[int, Path]]:
    """Return (step, file) of each frame of a run's film, the first step first; nothing if the run has no film.

    Raises CheckpointError if the folder cannot be read.
    """
    folder = run / FILM
    with reading(folder):
        if not is_folder(folder):
            return []
        found = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def save_frame(run: Path, parameters: Parameters, tokenizer: Vocabulary, step: int) -> int:
    """Write the weights after optimizer step `step` as a frame, atomically, and return the file's size in bytes.

    Raises CheckpointError; an older file then stays.
    """
    path = frame_path(run, step)
    with writing(path.parent):
        if not is_folder(path.parent):
            path.parent.mkdir()
            sync_folder(run)
    if parameters.config.dtype != "float32":
        single = Parameters(replace(parameters.config, dtype="float32"))
        for name, view in parameters.items():
            single[name][...] = view
        parameters = single
    return save_model(path, parameters, tokenizer, step)


def cut_film(run: Path, step: int) -> None:
    """Remove the frames of steps after `step`, which a resumed run makes again. Raises CheckpointError."""
    for later, path in frames(run):
        if later > step:
            with writing(path):
                os.unlink(path)
