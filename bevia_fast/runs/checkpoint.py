"""Checkpoints: everything a run needs to resume with the same bits as if it had never stopped.

RUN/checkpoints/step-<step>.safetensors holds the weights and AdamW's two moments; its header holds the step, all
options, the alphabet, the fingerprint of the text, and the versions of the software.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig, TrainConfig, option_name
from ..data.tokenizer import Tokenizer
from ..errors import CheckpointError, ConfigError, DataError
from ..files import reading, refuse_nul
from ..model.parameters import Parameters
from .folder import CHECKPOINTS
from .modelfile import check_version, layout, options_of, read_model
from .spikes import Spikes
from .tensorfile import damaged_header, open_tensors, write_tensors

FORMAT_VERSION = 1
PARTS = ("weights", "first", "second")  # the names of the moments are those of the AdamW kernel
NAME = re.compile(r"step-(\d{1,15})\.safetensors")

# Options that do not affect the result of a step, or only its rounding. `steps` changes the learning rates of later
# steps; `data` may have moved, since the text itself is compared.
MAY_CHANGE = {
    "data", "out", "resume", "allow_changed_text", "steps", "backend", "threads", "eval_every", "eval_batches",
    "sample_every", "crosscheck_every", "save_every", "save_seconds", "keep", "on_nan", "recompute",
    "ignore_memory",
}  # fmt: skip


@dataclass
class Progress:
    """The progress of a run, besides its weights and moments."""

    step: int = 0
    skipped: int = 0
    """Steps that were skipped because their numbers were not finite."""
    spikes: Spikes = field(default_factory=Spikes)
    unfinished: dict[str, Any] | None = None
    """The line of metrics.jsonl of `step`, until its evaluation is finished."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read from a file and validated."""

    path: Path
    config: TrainConfig
    tokenizer: Tokenizer
    progress: Progress
    fingerprint: str
    versions: dict[str, str]
    tensors: dict[str, Parameters]  # by the names of PARTS


@functools.cache  # looked up on disk, which may fail by the time a checkpoint is written
def versions() -> dict[str, str]:
    """Return the versions of the software, since another version of any of it may round differently."""
    found = {name: importlib.metadata.version(name) for name in ("bevia-fast", "numpy", "numba")}
    return {**found, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}


def checkpoint_path(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:08d}.safetensors"


def save_checkpoint(
    run: Path, config: TrainConfig, tokenizer: Tokenizer, progress: Progress, fingerprint: str,
    tensors: dict[str, Parameters],
) -> int:  # fmt: skip
    """Write a checkpoint of `progress.step`, atomically, and return its size in bytes. Raises CheckpointError."""
    about = {
        "format_version": FORMAT_VERSION,
        "config": asdict(config),
        "alphabet": tokenizer.alphabet,
        "progress": asdict(progress),
        "fingerprint": fingerprint,
        "versions": versions(),
    }
    arrays = {f"{part}.{name}": view for part in PARTS for name, view in tensors[part].items()}
    return write_tensors(checkpoint_path(run, progress.step), arrays, about)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and validate a checkpoint. Raises CheckpointError with one sentence about what is wrong."""
    with open_tensors(path) as file:
        about = file.about
        try:
            check_version(path, about, FORMAT_VERSION)
            options = options_of(TrainConfig, about["config"])
            model, tokenizer = read_model(options["model"], about["alphabet"])
            config = TrainConfig(**{**options, "model": model})
            progress = _read_progress(about["progress"])
            fingerprint, used = about["fingerprint"], about["versions"]
            if type(fingerprint) is not str or not isinstance(used, dict):
                raise ValueError("fingerprint or versions are missing")
            if checkpoint_path(Path(), progress.step).name != path.name:
                raise ValueError(f"it is of step {progress.step}")
        except (KeyError, TypeError, ValueError, RecursionError, ConfigError, DataError) as error:
            raise damaged_header(path, error) from None
        file.check({name: shape for part in PARTS for name, shape in layout(model, f"{part}.").items()})
        tensors = {part: Parameters(model) for part in PARTS}
        for part, parameters in tensors.items():
            for name, view in parameters.items():
                file.read_into(f"{part}.{name}", view)
    used = {str(name): str(version) for name, version in used.items()}
    return Checkpoint(path, config, tokenizer, progress, fingerprint, used, tensors)


def _read_progress(found: Any) -> Progress:
    """Return a Progress from JSON. Raises ValueError for anything else."""
    found = options_of(Progress, found)
    spikes = options_of(Spikes, found["spikes"])
    counts = found["step"], found["skipped"], spikes["count"]
    if not all(type(count) is int and 0 <= count < 1 << 50 for count in counts):
        raise ValueError("a count is invalid")
    numbers = spikes["mean"], spikes["variance"]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers) or numbers[1] < 0:
        raise ValueError("an average is invalid")
    record = found["unfinished"]
    if record is not None and not (isinstance(record, dict) and record.get("step") == found["step"]):
        raise ValueError("the unfinished step is invalid")
    return Progress(**{**found, "spikes": Spikes(**spikes)})


# ------------------------------------------------------------------------------------------------------------- choosing


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return the steps and files of a run's checkpoints, newest first. Raises CheckpointError without a folder."""
    folder = run / CHECKPOINTS
    with reading(folder):
        found = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def candidates(run: str | Path) -> list[Path]:
    """Return the files that a run could resume from, newest first, without reading them.

    Raises CheckpointError if there is none.
    """
    refuse_nul(run, "a run")
    run = Path(run)
    with reading(run):
        if not run.is_dir():
            raise CheckpointError(f"There is no run {run}.")
        found = checkpoints(run) if (run / CHECKPOINTS).is_dir() else []
    if not found:
        raise CheckpointError(f"{run} has no checkpoint to resume from.")
    return [path for _, path in found]


def newest_good(run: str | Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest intact checkpoint of a run, and what is wrong with each newer one.

    Raises CheckpointError if there is none; nothing is changed.
    """
    damaged: list[str] = []
    for path in candidates(run):
        try:
            return load_checkpoint(path), damaged
        except CheckpointError as error:
            damaged.append(str(error))
    others = f" None of the other {len(damaged) - 1} is intact either." if len(damaged) > 1 else ""
    raise CheckpointError(f"{run} has no intact checkpoint to resume from: {damaged[0]}{others}")


# -------------------------------------------------------------------------------------------------------------- options


def stored_config(run: str | Path) -> TrainConfig:
    """Return the options with which a run resumes by default.

        train(replace(stored_config("runs/1"), steps=5000))

    Raises CheckpointError if there is no intact checkpoint.
    """
    config = newest_good(run)[0].config
    return replace(config, resume=str(run), out="", allow_changed_text=False)


def refuse_changes(stored: TrainConfig, wanted: TrainConfig) -> None:
    """Raise ConfigError, naming the option, if an option differs that a resumed run cannot change."""
    run = wanted.resume
    if wanted.out and Path(wanted.out).resolve() != Path(run).resolve():
        raise ConfigError(f"--out is {wanted.out}; a resumed run stays in its folder, {run}.")
    model = wanted.model
    if not model.vocab_size:  # as in options that were not read from a checkpoint
        model = replace(model, vocab_size=stored.model.vocab_size)
    for name, old, new in _options(stored, replace(wanted, model=model)):
        if old != new and name not in MAY_CHANGE:
            option = option_name(name)
            raise ConfigError(f"{option} is {_shown(new)}; {run} started with {_shown(old)}, which cannot be changed.")


def _options(stored: TrainConfig | ModelConfig, wanted: TrainConfig | ModelConfig) -> Iterator[tuple[str, Any, Any]]:
    for each in fields(stored):
        old, new = getattr(stored, each.name), getattr(wanted, each.name)
        if is_dataclass(old):
            yield from _options(old, new)  # type: ignore[arg-type]  # only the model is one
        else:
            yield each.name, old, new


def _shown(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
