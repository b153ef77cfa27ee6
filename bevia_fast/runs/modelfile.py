"""A trained model as one file: model.safetensors, with the weights by name, the configuration and the alphabet.

Everything read from such a file is validated before it is used.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..data.tokenizer import Tokenizer
from ..errors import CheckpointError, ConfigError, DataError, shown
from ..files import MODEL, is_file, is_folder, mode, refuse_nul
from ..model.parameters import Parameters, parameter_specs
from .tensorfile import Layout, damaged_header, open_tensors, write_tensors

FORMAT_VERSION = 2

# What parsed JSON of any shape can raise when it is read as a configuration.
INVALID = (KeyError, TypeError, ValueError, ArithmeticError, RecursionError, ConfigError, DataError)


def save_model(path: Path, parameters: Parameters, tokenizer: Tokenizer, step: int) -> None:
    """Write the weights after optimizer step `step`, atomically. Raises CheckpointError; an older file then stays."""
    about = {
        "format_version": FORMAT_VERSION,
        "config": asdict(parameters.config),
        "alphabet": tokenizer.alphabet,
        "step": step,
    }
    write_tensors(path, parameters, about)


def load_model(path: str | Path) -> tuple[Parameters, Tokenizer]:
    """Read the weights and the vocabulary from a run folder or a model file.

    Raises CheckpointError for a file that is missing, truncated, changed in any bit, or written by another program, and
    for weights that do not match the file's configuration or are not finite.
    """
    return load_trained(path)[:2]


def load_trained(path: str | Path) -> tuple[Parameters, Tokenizer, int]:
    """Read the same as `load_model`, and the optimizer step after which the weights were saved."""
    path = model_path(path)
    with open_tensors(path) as file:
        try:
            check_version(path, file.about, FORMAT_VERSION)
            config, tokenizer = read_model(file.about["config"], file.about["alphabet"])
            step = file.about["step"]
            if type(step) is not int or not 0 <= step < 1 << 50:
                raise ValueError("its step is invalid")
        except INVALID as error:
            raise damaged_header(path, error) from None
        file.check(layout(config))
        parameters = Parameters(config)
        for name, view in parameters.items():
            file.read_into(name, view)
    return parameters, tokenizer, step


def model_path(path: str | Path) -> Path:
    """Return the model file of a run folder, or `path` if it is a file. Raises CheckpointError if there is none."""
    path = Path(path)
    refuse_nul(path, "a run")
    try:
        if is_folder(path):
            path = path / MODEL
            if not is_file(path):
                raise CheckpointError(f"There is no model in {path.parent}: it has no {MODEL}.")
        elif not mode(path):
            raise CheckpointError(f"There is no run {path}.")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None
    return path


def layout(config: ModelConfig, prefix: str = "") -> Layout:
    """Return the names, shapes and dtype of a model's weights; `prefix` is put before each name."""
    return {prefix + spec.name: (spec.shape, config.dtype) for spec in parameter_specs(config)}


def check_version(path: Path, about: dict[str, Any], version: int) -> None:
    """Raise CheckpointError for a file whose format has another version."""
    if about["format_version"] != version:
        found = shown(repr(about["format_version"]))
        raise CheckpointError(f"{path} has format version {found}; this program reads version {version}.")


def read_model(options: Any, alphabet: Any) -> tuple[ModelConfig, Tokenizer]:
    """Return the configuration and the vocabulary from parsed JSON.

    Raises TypeError, ValueError, ConfigError or DataError if they are invalid.
    """
    if not isinstance(alphabet, str):
        raise ValueError("the alphabet is not text")
    config, tokenizer = ModelConfig(**options_of(ModelConfig, options)), Tokenizer(alphabet)
    if len(tokenizer) != config.vocab_size:
        raise ValueError(f"its alphabet has {len(tokenizer)} characters, but its vocab_size is {config.vocab_size}")
    return config, tokenizer


def options_of(kind: type, options: Any) -> dict[str, Any]:
    """Return all fields of a dataclass from parsed JSON. Raises ValueError if a field is missing or unknown."""
    if not isinstance(options, dict):
        raise ValueError("the configuration is not an object")
    different = options.keys() ^ {field.name for field in fields(kind)}
    if different:
        raise ValueError(f"missing or unknown options: {', '.join(sorted(different))}")
    return options
