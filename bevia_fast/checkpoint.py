"""A trained model as one file: model.safetensors, with the weights by name, and configuration and alphabet inside.

The format holds numbers and text, no code: opening a file from a stranger is safe. Everything in it is checked before
it is believed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .config import ModelConfig
from .errors import CheckpointError, ConfigError, DataError
from .files import MODEL, write_atomically
from .parameters import Parameters, parameter_specs
from .tokenizer import Tokenizer

FORMAT = "bevia-fast"
FORMAT_VERSION = 1
DTYPES = {"float32": "F32", "float64": "F64"}  # NumPy's names and the file's


def save_model(path: Path, parameters: Parameters, tokenizer: Tokenizer, step: int) -> None:
    """Write the weights after optimiser step `step`. Raises CheckpointError; an older file at `path` then stays."""
    about = {
        "format_version": FORMAT_VERSION,
        "config": asdict(parameters.config),
        "alphabet": tokenizer.alphabet,
        "step": step,
    }
    # one entry, for the library writes several in an order that changes: the same weights should be the same bytes
    write_atomically(path, save(dict(parameters), {FORMAT: json.dumps(about)}))


def load_model(path: str | Path) -> tuple[Parameters, Tokenizer]:
    """The weights and the vocabulary of a run folder, or of a model file.

    Raises CheckpointError, with what is wrong in one sentence, for a file that is missing, cut short, of another
    program, or whose weights do not fit its own configuration or are not finite.
    """
    path = model_path(path)
    try:
        with safe_open(path, "numpy") as file:
            config, tokenizer = _read_metadata(file.metadata() or {}, path)
            _check_tensors(file, config, path)
            parameters = Parameters(config)
            for name, view in parameters.items():
                view[...] = file.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}).") from None
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(view))[0])
            raise CheckpointError(f"{path} is damaged: {name}{list(index)} is {view[index]}.")
    return parameters, tokenizer


def model_path(path: str | Path) -> Path:
    """The model file of a run folder, or the file itself. Raises CheckpointError if there is none."""
    path = Path(path)
    if "\0" in str(path):
        raise CheckpointError("The name of a run cannot have a NUL character in it.")
    try:
        if path.is_dir():
            path = path / MODEL
            if not path.exists():
                raise CheckpointError(f"There is no model in {path.parent}: it has no {MODEL}.")
        elif not path.exists():
            raise CheckpointError(f"There is no run {path}.")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from None
    return path


def _read_metadata(metadata: dict[str, str], path: Path) -> tuple[ModelConfig, Tokenizer]:
    if FORMAT not in metadata:
        raise CheckpointError(f"{path} was not written by bevia-fast.")
    try:
        about = json.loads(metadata[FORMAT])
        version, options, alphabet = about["format_version"], about["config"], about["alphabet"]
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{path} has format version {version}; this program reads {FORMAT_VERSION}.")
        if not isinstance(options, dict) or not isinstance(alphabet, str):
            raise ValueError("config or alphabet are not of the expected kind")
        known = {field.name for field in fields(ModelConfig)}
        if options.keys() != known:
            raise ValueError(f"options {', '.join(sorted(options.keys() ^ known))}")
        config, tokenizer = ModelConfig(**options), Tokenizer(alphabet)
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError, DataError) as error:
        raise CheckpointError(f"{path} has a damaged header ({type(error).__name__}: {error}).") from None
    if len(tokenizer) != config.vocab_size:
        raise CheckpointError(
            f"{path} is damaged: its alphabet has {len(tokenizer)} characters, its configuration {config.vocab_size}."
        )
    return config, tokenizer


def _check_tensors(file: Any, config: ModelConfig, path: Path) -> None:
    """Look at names, shapes and dtypes before any memory is asked for."""
    wanted, dtype = {spec.name: spec.shape for spec in parameter_specs(config)}, DTYPES[config.dtype]
    for name in sorted(wanted.keys() ^ set(file.keys())):
        raise CheckpointError(f"{path} is damaged: {name} is {'missing' if name in wanted else 'not of this model'}.")
    for name, shape in wanted.items():
        found = file.get_slice(name)
        if tuple(found.get_shape()) != shape or found.get_dtype() != dtype:
            raise CheckpointError(
                f"{path} is damaged: {name} is {found.get_dtype()} {tuple(found.get_shape())}; wanted {dtype} {shape}."
            )
