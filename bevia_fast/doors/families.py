"""The families of models in Hugging Face's transformers that ours belong to: by which names and in which order each of
them stores the weights.

    gpt2      learned positions: our names and layouts
    gpt_neox  rotary positions: linear layers output x input; q, k and v of a head side by side
    gpt_neo   learned positions and windows: linear layers output x input; q, k and v apart, without biases, and scores
              that are not divided by sqrt(HS)

GPT-NeoX (Black et al. 2022, arXiv:2204.06745), with `use_parallel_residual` off and `rotary_pct` 1, computes what ours
with rotary positions does, and GPT-Neo what ours with windows does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..errors import ConfigError
from ..model.parameters import Parameters
from ..naming import option

Array = NDArray[Any]
Family = Literal["gpt2", "gpt_neox", "gpt_neo"]

# Our names of what a tensor belongs to, within a layer or outside -> GPT-NeoX's.
NEOX = {
    "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.c_attn": "attention.query_key_value",
    "attn.c_proj": "attention.dense", "mlp.c_fc": "mlp.dense_h_to_4h", "mlp.c_proj": "mlp.dense_4h_to_h",
}  # fmt: skip
NEOX_OUTSIDE = {"wte": "gpt_neox.embed_in", "ln_f": "gpt_neox.final_layer_norm", "lm_head": "embed_out"}
OUR_NEOX = {theirs: ours for ours, theirs in NEOX.items()}
QKV = ("q_proj", "k_proj", "v_proj")  # of GPT-Neo, in the order of our qkv


def family_of(config: ModelConfig) -> Family:
    """Return the family of a model. Raises ConfigError for a model that transformers has no counterpart of."""
    if config.norm != "pre":
        raise ConfigError(
            f"A model with {option('norm', config.norm)} has no counterpart in other programs, whose GPT-2 normalizes "
            f"before each branch; only models with {option('norm', 'pre')} can be exported."
        )
    for name in ("scale", "residual"):
        if not getattr(config, name):
            raise ConfigError(f"A model with {option(name, False)} has no counterpart in other programs' GPT-2.")
    rotary, windows = config.positions == "rotary", any(config.windows)
    if rotary and windows:
        raise ConfigError(
            f"A model with {option('positions', 'rotary')} and {option('window', config.window)} has no counterpart in "
            "other programs: of their models, GPT-NeoX has rotary positions and GPT-Neo has windows."
        )
    return "gpt_neox" if rotary else "gpt_neo" if windows else "gpt2"


def their_tensors(parameters: Parameters) -> dict[str, Array]:
    """Return the weights by the names of the model's family and in its layouts.

    Raises ConfigError for a model with windows whose queries, keys and values have biases: GPT-Neo has none.
    """
    config, found = parameters.config, dict[str, Array]()
    family = family_of(config)
    if family == "gpt2":
        return dict(parameters)
    for name, view in parameters.items():
        layer, owner, kind = _parts(name)
        stored = view.T if view.ndim == 2 and layer else view
        if family == "gpt_neox":
            where = f"gpt_neox.layers.{layer}.{NEOX[owner]}" if layer else NEOX_OUTSIDE[owner]
            if owner == "attn.c_attn":
                stored = by_head(stored, config.heads)
            found[f"{where}.{kind}"] = np.ascontiguousarray(stored)
        elif owner == "attn.c_attn" and kind == "bias":
            if view.any():
                raise ConfigError(
                    f"A model with {option('window', config.window)} is GPT-Neo in other programs, whose queries, keys "
                    f"and values have no biases; one with {option('bias', False)} can be exported."
                )
        elif owner == "attn.c_attn":
            for part, third in zip(QKV, np.split(stored, 3), strict=True):
                third = third / math.sqrt(config.head_size) if part == "q_proj" else third
                found[f"transformer.h.{layer}.attn.attention.{part}.weight"] = np.ascontiguousarray(third, view.dtype)
        else:
            where = f"h.{layer}.{owner.replace('attn.c_proj', 'attn.attention.out_proj')}" if layer else owner
            where = where if owner == "lm_head" else f"transformer.{where}"
            found[f"{where}.{kind}"] = np.ascontiguousarray(stored)
    return found


def our_tensors(family: Family, tensors: Mapping[str, Array], heads: int) -> dict[str, Array]:
    """Return the tensors of a family by our names and in our layouts; a name that it does not have stays.

    Biases that the family lets be absent, those of attention, become 0.
    """
    if family == "gpt2":
        return dict(tensors)
    found = dict[str, Array]()
    for name, tensor in tensors.items():
        ours = _of_neox(name) if family == "gpt_neox" else name.replace("attn.attention.out_proj", "attn.c_proj")
        if ours.startswith("h.") and tensor.ndim == 2:
            tensor = tensor.T
        if family == "gpt_neox" and ".attn.c_attn." in ours and tensor.shape[-1] % (3 * heads) == 0:
            tensor = by_part(tensor, heads)
        found[ours] = tensor
    for name in [name for name in found if name.endswith(f"attn.attention.{QKV[0]}.weight")]:
        layer, places = name.split(".")[1], [name.replace(QKV[0], part) for part in QKV]
        if all(place in found and found[place].ndim == 2 for place in places):
            q, k, v = (found.pop(place) for place in places)
            scaled = (q * math.sqrt(len(q) / heads)).astype(q.dtype)  # len(q) = C
            found[f"h.{layer}.attn.c_attn.weight"] = np.concatenate((scaled, k, v), axis=1)
    for name in [name for name in found if name.endswith((".attn.c_attn.weight", ".attn.c_proj.weight"))]:
        found.setdefault(name.removesuffix("weight") + "bias", np.zeros(found[name].shape[-1:], found[name].dtype))
    return found


def by_head(stored: Array, heads: int) -> Array:
    """(3 C, ...) as q, k and v one after the other -> as q, k and v of the first head, of the second, ..."""
    return stored.reshape(3, heads, -1, *stored.shape[1:]).swapaxes(0, 1).reshape(stored.shape)


def by_part(tensor: Array, heads: int) -> Array:
    """(..., 3 C) the other way round, in our layout."""
    parts = tensor.reshape(*tensor.shape[:-1], heads, 3, -1)
    return np.ascontiguousarray(parts.swapaxes(-3, -2)).reshape(tensor.shape)


def _parts(name: str) -> tuple[str, str, str]:
    """Return the layer of a tensor of ours, empty outside of the layers, its owner, and "weight" or "bias"."""
    owner, kind = name.rsplit(".", 1)
    if not owner.startswith("h."):
        return "", owner, kind
    _, layer, owner = owner.split(".", 2)
    return layer, owner, kind


def _of_neox(name: str) -> str:
    """Return our name of a tensor of GPT-NeoX, or the name itself if it is none. Version 5 calls the head lm_head."""
    name = name.removeprefix("gpt_neox.")
    for ours, theirs in NEOX_OUTSIDE.items():
        if name.startswith(theirs.removeprefix("gpt_neox.") + "."):
            return f"{ours}.{name.rsplit('.', 1)[1]}"
    match name.split(".", 2):
        case ["layers", layer, rest] if rest.rsplit(".", 1)[0] in OUR_NEOX:
            owner, kind = rest.rsplit(".", 1)
            return f"h.{layer}.{OUR_NEOX[owner]}.{kind}"
    return name
