"""A folder of Hugging Face's transformers: GPT-2 and models of its shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError, shown
from .foreign import read_folder, read_json
from .gpt2 import Foreign, is_tied, our_names
from .hub import ACTIVATIONS, EPSILON

THEIR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu"}
EXACT = {"gelu", "gelu_python"}  # by the error function
# Options of GPT2Config that change what is computed -> the values with which it computes what ours do.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "layer_norm_epsilon": (EPSILON,), "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}  # fmt: skip


def read_hub(folder: Path) -> tuple[Foreign, bool]:
    """Return the model of a folder, and whether its GELU is the exact one.

    Raises CheckpointError if it cannot be read, and for a model that computes something else than ours.
    """
    path = folder / "config.json"
    found = read_json(path)
    if found.get("model_type") != "gpt2":
        raise CheckpointError(
            f"{path} describes a model of type {shown(repr(found.get('model_type')), 40)}; this program reads 'gpt2'."
        )
    for name, values in COMPUTED.items():
        if name in found and found[name] not in values:
            is_now = shown(repr(found[name]), 40)
            raise CheckpointError(f"{path} has {name} {is_now}; this program computes {values[0]}.")
    activation = found.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in {*THEIR_ACTIVATIONS, *EXACT}:
        raise CheckpointError(
            f"{path} has the activation {shown(repr(activation), 40)}; this program has {', '.join(THEIR_ACTIVATIONS)}."
        )
    tensors = our_names(read_folder(folder))
    try:
        dim, inner = found["n_embd"], found.get("n_inner")
        if inner not in (None, 4 * dim):
            raise ConfigError(f"its MLP has {inner} channels; those of this program have {4 * dim}.")
        # with tied embeddings, transformers does not read a head that is stored nevertheless
        tie = found.get("tie_word_embeddings", True) or ("lm_head.weight" in tensors and is_tied(tensors))
        config = ModelConfig(
            ctx=found["n_positions"], dim=dim, layers=found["n_layer"], heads=found["n_head"],
            activation=THEIR_ACTIVATIONS.get(activation, "gelu"),  # type: ignore[arg-type]
            dropout=float(found.get("resid_pdrop", 0.1)), tie=bool(tie), vocab_size=found["vocab_size"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is incomplete: {type(error).__name__}: {shown(error)}.") from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Foreign(config, tensors), activation in EXACT
