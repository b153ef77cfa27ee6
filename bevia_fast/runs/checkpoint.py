"""Checkpoints: everything that a run needs to resume with the same bits as without an interruption.

RUN/checkpoints/step-<step>.safetensors holds the weights and the optimizer's moments. Its header holds the step, all
options, the alphabet, the fingerprint of the text, and the versions of the programs that computed it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, TrainConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, ConfigError, DataError
from ..files import CHECKPOINTS, is_folder, mode, reading, refuse_nul
from ..model.optimizer import second_moment
from ..model.parameters import Parameters
from ..naming import option
from .modelfile import (
    CHECKPOINT_VERSION,
    INVALID,
    PARTS,
    check_version,
    checkpoint_layout,
    options_of,
    read_model,
    run_of,
)
from .progress import Progress, read_progress
from .tensorfile import damaged_header, open_tensors, write_tensors

FINGERPRINT = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"step-(\d{1,15})\.safetensors")

# Options that do not affect what a step computes, or only how it is rounded. `steps` affects the learning rate of later
# steps. `data`, and how it is read, may change because a text can be moved or converted; its characters are compared.
MAY_CHANGE = {
    "data", "glob", "encoding", "newlines", "normalize",
    "out", "name", "resume", "allow_changed_text", "steps", "backend", "threads", "eval_every", "eval_batches",
    "sample_every", "crosscheck_every", "save_every", "save_seconds", "keep", "film", "on_nan", "recompute",
    "ignore_memory", "patience", "minutes",
}  # fmt: skip

# Options that were added later, with what earlier versions did. Their runs can be resumed.
ADDED: dict[str, Any] = {
    "glob": (), "encoding": "utf-8", "newlines": "keep", "normalize": "keep", "name": "", "film": 0,
    "optimizer": "adamw", "muon_lr": 0.02, "muon_momentum": 0.95, "bias_correction": True, "patience": 0,
    "minutes": 0.0, "ctx_schedule": "", "init": "", "tokens": "chars",
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The validated contents of a checkpoint file."""

    path: Path
    config: TrainConfig
    tokenizer: Vocabulary
    progress: Progress
    fingerprint: str
    versions: dict[str, str]
    tensors: dict[str, Parameters]  # keys: PARTS


@functools.cache  # they are read from the disk, which may fail by the time a checkpoint is written
def versions() -> dict[str, str]:
    """Return the versions of everything that may round differently in another version."""
    found = {name: importlib.metadata.version(name) for name in ("bevia-fast", "numpy", "numba")}
    return {**found, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


def checkpoint_path(run: Path, step: int) -> Path:
    """Return the file of the checkpoint of a step."""
    return run / CHECKPOINTS / f"step-{step:08d}.safetensors"


def save_checkpoint(
    run: Path, config: TrainConfig, tokenizer: Vocabulary, progress: Progress, fingerprint: str,
    tensors: dict[str, Parameters],
) -> int:  # fmt: skip
    """Write a checkpoint of step `progress.step` atomically, and return its size in bytes.

    `fingerprint` identifies the text. Raises CheckpointError; existing files then stay as they are.
    """
    about = {
        "format_version": CHECKPOINT_VERSION,
        "config": asdict(config),
        **tokenizer.stored(),
        "progress": asdict(progress),
        "fingerprint": fingerprint,
        "versions": versions(),
    }
    arrays = {f"{part}.{name}": view for part in PARTS for name, view in tensors[part].items()}
    return write_tensors(checkpoint_path(run, progress.step), arrays, about)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and validate a checkpoint. Raises CheckpointError if it is missing, damaged or of another version."""
    with open_tensors(path) as file:
        about = file.about
        try:
            check_version(path, about, CHECKPOINT_VERSION)
            options = options_of(TrainConfig, {**ADDED, **about["config"]})
            model, tokenizer = read_model(options["model"], about)
            config = TrainConfig(**{**options, "model": model})
            progress = read_progress(about["progress"])
            fingerprint, used = about["fingerprint"], _read_versions(about["versions"])
            if type(fingerprint) is not str or not FINGERPRINT.fullmatch(fingerprint):
                raise ValueError("the fingerprint is invalid")
            if checkpoint_path(Path(), progress.step).name != path.name:
                raise ValueError(f"its step is {progress.step}")
            if progress.best.step == 0 and not config.init:
                raise ValueError("its best model is untrained")
        except INVALID as error:
            raise damaged_header(path, error) from None
        file.check(checkpoint_layout(model, config.optimizer))
        tensors = {part: Parameters(model) for part in PARTS[:2]}
        tensors["second"] = second_moment(config.optimizer, model)
        for part, parameters in tensors.items():
            for name, view in parameters.items():
                file.read_into(f"{part}.{name}", view)
    return Checkpoint(path, config, tokenizer, progress, fingerprint, used, tensors)


def _read_versions(found: Any) -> dict[str, str]:
    """Return versions by name from parsed JSON. Raises ValueError if they are invalid."""
    if not isinstance(found, dict) or len(found) > 100:
        raise ValueError("the versions are invalid")
    for each in (*found.keys(), *found.values()):
        if not (type(each) is str and len(each) <= 200):
            raise ValueError("a version is invalid")
    return found


# ------------------------------------------------------------------------------------------------------------- choosing


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return (step, file) of a run's checkpoints, newest first. Raises CheckpointError if their folder is missing."""
    folder = run / CHECKPOINTS
    with reading(folder):
        found = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def candidates(run: str | Path) -> list[Path]:
    """Return the checkpoint files of a run, newest first, without reading them.

    Raises CheckpointError if there is none.
    """
    refuse_nul(run, "a run")
    run = Path(run)
    with reading(run):
        inside = run_of(run)
        if inside and mode(run) and not is_folder(run / CHECKPOINTS):
            raise CheckpointError(f"{run} is part of a run; name the run, {inside}, to resume its newest checkpoint.")
        if not is_folder(run):
            raise CheckpointError(f"There is no run {run}{', but a file of this name' if mode(run) else ''}.")
        found = checkpoints(run) if is_folder(run / CHECKPOINTS) else []
    if not found:
        raise CheckpointError(f"{run} has no checkpoint to resume from.")
    return [path for _, path in found]


def newest_good(run: str | Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest intact checkpoint of a run, and what is wrong with each newer one.

    Changes nothing on disk. Raises CheckpointError if there is none.
    """
    damaged: list[str] = []
    for path in candidates(run):
        try:
            return load_checkpoint(path), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    others = f" Older checkpoints that cannot be used either: {len(damaged) - 1}." if len(damaged) > 1 else ""
    raise CheckpointError(f"{run} has no intact checkpoint to resume from: {damaged[0]}{others}")


def text_fingerprint(run: Path) -> str:
    """Return the SHA-256 of the text that a run was trained on. Raises CheckpointError if no checkpoint has it."""
    problem: CheckpointError | None = None
    for path in candidates(run):
        try:
            with open_tensors(path) as file:
                found = file.about.get("fingerprint")
            if type(found) is str and FINGERPRINT.fullmatch(found):
                return found
        except CheckpointError as error:
            problem = problem or error
    raise problem or CheckpointError(f"{run} has no checkpoint that names its text.")


# -------------------------------------------------------------------------------------------------------------- options


def resume(run: str | Path, **changes: Any) -> TrainConfig:
    """Return the options that resume a run as it was started, with changes to those that may change:

        train(resume("runs/1", steps=5000))

    Raises CheckpointError if the run has no intact checkpoint, and ConfigError for an unknown or invalid option.
    """
    unknown = changes.keys() - {each.name for each in fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"There is no option {sorted(unknown)[0]!r}.")
    return replace(stored_config(run), **changes)


def stored_config(run: str | Path) -> TrainConfig:
    """Return the options that resume a run as it was started.

    Raises CheckpointError if the run has no intact checkpoint.
    """
    config = newest_good(run)[0].config
    return replace(config, resume=str(run), out="", name="", allow_changed_text=False)


def refuse_changes(stored: TrainConfig, wanted: TrainConfig) -> None:
    """Raise ConfigError naming the first option whose change a resumed run does not allow."""
    run = wanted.resume
    if wanted.out and Path(wanted.out).resolve() != Path(run).resolve():
        raise ConfigError(f"{option('out')} is {wanted.out}; a resumed run stays in its folder, {run}.")
    model = wanted.model
    if not model.vocab_size:  # the options were not read from a checkpoint
        model = replace(model, vocab_size=stored.model.vocab_size)
    for name, old, new in _options(stored, replace(wanted, model=model)):
        if old != new and name not in MAY_CHANGE:
            raise ConfigError(
                f"{option(name)} is {_shown(new)}; {run} started with {_shown(old)}, which cannot be changed."
            )


def refuse_lost_text(stored: TrainConfig, wanted: TrainConfig) -> None:
    """Raise DataError if a resumed run would read its text from a file that is no longer where it was."""
    for path in wanted.data if wanted.data == stored.data else ():
        if path != "-" and not os.path.exists(path):
            where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
            raise DataError(
                f"{wanted.resume} was trained on {path}, which is not there{where}; "
                f"name the text with {option('data')}."
            )


def _options(stored: TrainConfig | ModelConfig, wanted: TrainConfig | ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    for each in fields(stored):
        old, new = getattr(stored, each.name), getattr(wanted, each.name)
        if is_dataclass(old):
            yield from _options(old, new)  # type: ignore[arg-type]  # `old` is the ModelConfig
        else:
            yield each.name, old, new


def _shown(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value) or "none"
