"""The sizes of a run on disk, so that `bench` and `profile` measure the training step of that run."""

from __future__ import annotations

import json
from pathlib import Path

from ..config import ModelConfig, TrainConfig
from ..errors import CheckpointError, ConfigError
from ..files import OPTIONS, options_file, reading, refuse_nul, refuse_special
from ..runs.checkpoint import ADDED
from ..runs.modelfile import known_fields, load_model

TAKEN = ("batch", "accumulate", "recompute")  # the options of a run, beside its model's, that decide about a step
TAKEN_LATER = ("optimizer",)  # those that runs of earlier versions do not name


def run_config(run: str) -> TrainConfig:
    """Return the options of a run that decide about its training step: the model, the batch, --accumulate,
    --optimizer and --recompute; the others have their defaults. Of a model file, only the model is known.

    Raises CheckpointError if `run` is no run.
    """
    path = Path(run)
    refuse_nul(path, "a run")
    if path.is_file():
        return TrainConfig(model=load_model(path)[0].config)
    if not path.is_dir():
        raise CheckpointError(f"There is no run {path}.")
    with reading(path):
        path = options_file(path)
    if not path.exists():
        raise CheckpointError(f"{path.parent} is not a run: it has no {OPTIONS}.")
    with reading(path):
        refuse_special(path)
        data = path.read_bytes()
    try:
        found = json.loads(data.decode("utf-8"))
        model = ModelConfig(**known_fields(ModelConfig, found["model"]))
        added = {name: found.get(name, ADDED[name]) for name in TAKEN_LATER}
        config = TrainConfig(model=model, **{name: found[name] for name in TAKEN}, **added)
    except ConfigError as error:
        raise CheckpointError(f"{path} is not the configuration of a run: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{path} is not the configuration of a run.") from None
    if model.vocab_size < 1:
        raise CheckpointError(f"{path} does not say how many characters the text has.")
    return config
