"""Which of a run's models is meant: the best one, the last one, or that of a step."""

from __future__ import annotations

from pathlib import Path

from ..config import BEST_ONE, LAST_ONE
from ..errors import CheckpointError
from ..files import BEST, CHECKPOINTS, MODEL, is_file, is_folder, reading, refuse_nul
from ..naming import option
from .checkpoint import checkpoints
from .film import frames
from .modelfile import model_path
from .tensorfile import open_tensors


def chosen_model(path: str | Path, checkpoint: str = BEST_ONE) -> Path:
    """Return the file of a run's model: of the best validation loss, of the last save, or of a step's number.

    A run without a best model, as of an earlier version, has only the last one. A `path` that is a file is returned as
    it is. Raises CheckpointError if there is no such model, or if a file is given and a `checkpoint` chosen.
    """
    run = Path(path)
    refuse_nul(run, "a run")
    with reading(run):
        if not is_folder(run):
            if checkpoint != BEST_ONE:
                file = model_path(run)  # raises if it does not exist
                raise CheckpointError(f"{file} is a model of its own; {option('checkpoint')} chooses from a run.")
            return model_path(run)
        best = run / BEST if is_file(run / BEST) else None
    if checkpoint == BEST_ONE and best is not None:
        return best
    if checkpoint in (BEST_ONE, LAST_ONE):
        return model_path(run)
    return _of_step(run, int(checkpoint))


def remark_on(path: str | Path, checkpoint: str, step: int) -> str:
    """Return a sentence if the model of `step`, which was chosen without being named, is not the last of its run."""
    last = _step(Path(path) / MODEL) if checkpoint == BEST_ONE else None
    if last is None or last == step:
        return ""
    return f"this is the model of step {step:,}, the best; {option('checkpoint', LAST_ONE)} takes that of {last:,}."


def _of_step(run: Path, step: int) -> Path:
    """Return the file that holds the weights after a step. Raises CheckpointError, naming the steps that there are."""
    found = models_by_step(run)
    if step in found:
        return found[step]
    model_path(run)  # raises if this is no run
    if not found:
        raise CheckpointError(f"{run} has no model of step {step:,}.")
    listed = ", ".join(f"{each:,}" for each in sorted(found))
    raise CheckpointError(f"{run} has no model of step {step:,}; it has those of the steps {listed}.")


def models_by_step(run: Path) -> dict[int, Path]:
    """Return the models of a run by their steps: frames of the film, checkpoints, the best one and the last one.

    Raises CheckpointError if the run's folders cannot be read.
    """
    found: dict[int, Path] = dict(frames(run))
    with reading(run):
        if is_folder(run / CHECKPOINTS):  # in the run's own dtype, which the film's frames may not have
            found.update(checkpoints(run))
    for name in (BEST, MODEL):
        step = _step(run / name)
        if step is not None:
            found[step] = run / name
    return found


def _step(path: Path) -> int | None:
    """Return the step that a model file names, if it can be read."""
    try:
        with open_tensors(path) as file:
            step = file.about.get("step")
            return step if type(step) is int else None
    except CheckpointError:
        return None
