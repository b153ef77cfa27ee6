"""A trained model as one file: model.safetensors, with the weights by name, the configuration and the alphabet.

Everything read from such a file is validated before it is used.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from ..config import ModelConfig, OptimizerName
from ..data.vocabularies import restored
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, ConfigError, DataError, counted, shown
from ..files import (
    CHECKPOINTS,
    FILM,
    HUB,
    LOSS,
    METRICS,
    MODEL,
    OPTIONS,
    SAMPLE,
    is_file,
    is_folder,
    mode,
    refuse_nul,
)
from ..model.parameters import Parameters, parameter_specs
from .tensorfile import Layout, damaged_header, open_tensors, write_tensors

FORMAT_VERSION = 2
CHECKPOINT_VERSION = 1  # of the files that `checkpoint` writes, which have the weights of a model too
PARTS = ("weights", "first", "second")  # of a checkpoint; for "first" and "second", see `model.optimizer`
# Options of the model that were added later, with what earlier versions did.
ADDED: dict[str, Any] = {
    "scale": True, "residual": True, "positions": "learned", "window": 0, "window_layers": "alternate",
    "precision": "float32",
}  # fmt: skip

# What parsed JSON of any shape can raise when it is read as a configuration.
INVALID = (KeyError, TypeError, ValueError, ArithmeticError, RecursionError, ConfigError, DataError)


def save_model(path: Path, parameters: Parameters, tokenizer: Vocabulary, step: int) -> int:
    """Write the weights after optimizer step `step`, atomically, and return the file's size in bytes.

    Raises CheckpointError; an older file then stays.
    """
    names = names_in_file(parameters.config)
    about = {
        "format_version": FORMAT_VERSION,
        "config": asdict(parameters.config),
        **tokenizer.stored(),
        "step": step,
        "names": names,
    }
    return write_tensors(path, {_named(name, names): view for name, view in parameters.items()}, about)


def names_in_file(config: ModelConfig) -> str:
    """Return which of GPT-2's names the weights of a model file have: of the "transformer", or of the "lm" with a head.

    transformers before version 5 refuses to mix them: a model with an `lm_head.weight` of its own has
    `transformer.wte.weight`, and one without it may have `wte.weight`.
    """
    return "transformer" if config.tie else "lm"


def _named(name: str, names: str) -> str:
    return f"transformer.{name}" if names == "lm" and not name.startswith("lm_head.") else name


def load_model(path: str | Path) -> tuple[Parameters, Vocabulary]:
    """Read the weights and the vocabulary from a run folder, a model file or a checkpoint.

    Raises CheckpointError for a file that is missing, truncated, changed in any bit, or written by another program, and
    for weights that do not match the file's configuration or are not finite.
    """
    return load_trained(path)[:2]


def load_trained(path: str | Path) -> tuple[Parameters, Vocabulary, int]:
    """Read the same as `load_model`, and the optimizer step after which the weights were saved."""
    path = model_path(path)
    with open_tensors(path) as file:
        try:
            options, checkpoint = file.about["config"], "progress" in file.about
            check_version(path, file.about, CHECKPOINT_VERSION if checkpoint else FORMAT_VERSION)
            config, tokenizer = read_model(options["model"] if checkpoint else options, file.about)
            step = (file.about["progress"] if checkpoint else file.about)["step"]
            if type(step) is not int or not 0 <= step < 1 << 50:
                raise ValueError("its step is invalid")
            names = file.about.get("names", "transformer")  # as checkpoints and earlier versions have them
            if names not in ("transformer", "lm"):
                raise ValueError("its names of weights are unknown")
            expected = checkpoint_layout(config, options.get("optimizer", "adamw")) if checkpoint else layout(config)
        except INVALID as error:
            raise damaged_header(path, error) from None
        file.check({_named(name, names): shape for name, shape in expected.items()})
        parameters, prefix = Parameters(config), f"{PARTS[0]}." if checkpoint else ""
        for name, view in parameters.items():
            file.read_into(_named(prefix + name, names), view)
    return parameters, tokenizer, step


def known_fields(kind: type, found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass from parsed JSON. An older version wrote fewer of them, a later one may more."""
    return {each.name: found[each.name] for each in fields(kind) if each.name in found}


def model_path(path: str | Path) -> Path:
    """Return the model file of a run folder, or `path` if it is a file. Raises CheckpointError if there is none."""
    path = Path(path)
    refuse_nul(path, "a run")
    try:
        if is_folder(path):
            path = path / MODEL
            if not is_file(path):
                raise CheckpointError(f"There is no model in {path.parent}: it has no {MODEL}{_instead(path.parent)}.")
        elif not mode(path):
            raise CheckpointError(f"There is no run {path}.")
        elif path.name in (OPTIONS, METRICS, LOSS, SAMPLE, *HUB) and run_of(path):
            raise CheckpointError(f"{path} is not a model{_instead(path)}.")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None
    return path


def _instead(path: Path) -> str:
    run = run_of(path)
    return f"; the run is {run}" if run else ""


def layout(config: ModelConfig, prefix: str = "", *, hidden: bool = True) -> Layout:
    """Return the names, shapes and dtype of a model's weights; `prefix` is put before each name. Without `hidden`, the
    matrices of the layers are left out."""
    specs = parameter_specs(config)
    return {prefix + spec.name: (spec.shape, config.dtype) for spec in specs if hidden or not spec.hidden}


def checkpoint_layout(config: ModelConfig, optimizer: Any) -> Layout:
    """Return the names, shapes and dtype of the tensors in a checkpoint. Raises ValueError for an unknown optimizer."""
    if optimizer not in get_args(OptimizerName):
        raise ValueError("its optimizer is unknown")
    parts = [layout(config, f"{part}.", hidden=part != "second" or optimizer == "adamw") for part in PARTS]
    return {name: shape for part in parts for name, shape in part.items()}


def run_of(path: Path) -> Path | None:
    """Return the folder of the run that a file or folder is part of, or None if it is not in a run."""
    folder = path.parent.parent if path.parent.name in (CHECKPOINTS, FILM) else path.parent
    return folder if is_folder(folder / CHECKPOINTS) else None


def check_version(path: Path, about: dict[str, Any], version: int) -> None:
    """Raise CheckpointError for a file whose format has another version."""
    if about["format_version"] != version:
        found = shown(repr(about["format_version"]))
        raise CheckpointError(f"{path} has format version {found}; this program reads version {version}.")


def read_model(options: Any, about: dict[str, Any]) -> tuple[ModelConfig, Vocabulary]:
    """Return the configuration and the vocabulary from parsed JSON; `about` is the header of a file.

    Raises KeyError, TypeError, ValueError, ConfigError or DataError if they are invalid.
    """
    if isinstance(options, dict):
        options = {**ADDED, **options}
    config, tokenizer = ModelConfig(**options_of(ModelConfig, options)), restored(about)
    if len(tokenizer) != config.vocab_size:
        found = counted(len(tokenizer), tokenizer.unit)
        raise ValueError(f"its alphabet has {found}, but its vocab_size is {config.vocab_size}")
    return config, tokenizer


def options_of(kind: type, options: Any) -> dict[str, Any]:
    """Return all fields of a dataclass from parsed JSON. Raises ValueError if a field is missing or unknown."""
    if not isinstance(options, dict):
        raise ValueError("the configuration is not an object")
    different = options.keys() ^ {field.name for field in fields(kind)}
    if different:
        raise ValueError(f"missing or unknown options: {', '.join(sorted(different))}")
    return options
