"""nanoGPT's ckpt.pt: what its train.py saves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from .gpt2 import Foreign, input_by_output, is_tied, our_names
from .pickles import load_torch


def read_nanogpt(path: Path) -> Foreign:
    """Return the model of a checkpoint of nanoGPT. Raises CheckpointError for any other file."""
    found = load_torch(path)
    try:
        sizes, tensors = found["model_args"], found["model"]
        config = ModelConfig(
            ctx=sizes["block_size"], dim=sizes["n_embd"], layers=sizes["n_layer"], heads=sizes["n_head"],
            activation="gelu_erf",  # torch.nn.GELU()
            dropout=float(sizes["dropout"]), bias=sizes["bias"], vocab_size=sizes["vocab_size"],
        )  # fmt: skip
        if not all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
            raise TypeError("a weight is not a tensor")
        step = found.get("iter_num", 0)
        if type(step) is not int or not 0 <= step < 1 << 50:
            raise ValueError("iter_num is not a number of steps")
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of nanoGPT: {type(error).__name__}: {error}.") from None
    tensors = our_names(tensors)
    if not is_tied(tensors):
        raise CheckpointError(f"{path} has an lm_head.weight of its own, which nanoGPT's models do not have.")
    return Foreign(config, input_by_output(tensors), step)
