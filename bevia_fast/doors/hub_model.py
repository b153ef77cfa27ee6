"""A folder of Hugging Face's transformers: GPT-2 and models of its shape, GPT-NeoX, and GPT-Neo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ..config import ModelConfig, WindowLayers
from ..errors import CheckpointError, ConfigError, shown
from ..model.rotary import BASE
from .families import Family, our_tensors
from .foreign import read_folder, read_json
from .gpt2 import Foreign, is_tied, our_names
from .hub import ACTIVATIONS, EPSILON

Found = dict[str, Any]

THEIR_ACTIVATIONS = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {
    "gelu_pytorch_tanh": "gelu", "gelu_python": "gelu_erf",
}  # fmt: skip


@dataclass(frozen=True)
class Description:
    """What a config.json of a family calls the sizes of a model, and which of its options we compute."""

    ctx: str
    dim: str
    layers: str
    heads: str
    inner: str
    activation: tuple[str, str]  # its name, and what it is by default
    dropout: tuple[str, float]
    tied: bool  # whether embeddings are tied by default
    # Options that change what is computed -> their default, and the value with which it is what ours compute.
    computed: Mapping[str, tuple[Any, Any]]


DESCRIPTIONS: dict[Family, Description] = {
    "gpt2": Description(
        "n_positions", "n_embd", "n_layer", "n_head", "n_inner", ("activation_function", "gelu_new"),
        ("resid_pdrop", 0.1), True,
        {"layer_norm_epsilon": (EPSILON, EPSILON), "scale_attn_weights": (True, True),
         "scale_attn_by_inverse_layer_idx": (False, False), "add_cross_attention": (False, False)},
    ),
    "gpt_neox": Description(
        "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        ("hidden_act", "gelu"), ("hidden_dropout", 0.0), False,
        {"layer_norm_eps": (EPSILON, EPSILON), "use_parallel_residual": (True, False), "rotary_pct": (0.25, 1.0),
         "rotary_emb_base": (BASE, BASE), "rope_scaling": (None, None)},
    ),
    "gpt_neo": Description(
        "max_position_embeddings", "hidden_size", "num_layers", "num_heads", "intermediate_size",
        ("activation_function", "gelu_new"), ("resid_dropout", 0.0), True,
        {"layer_norm_epsilon": (EPSILON, EPSILON)},
    ),
}  # fmt: skip


def read_hub(folder: Path) -> Foreign:
    """Return the model of a folder.

    Raises CheckpointError if it cannot be read, and for a model that computes something else than ours.
    """
    path = folder / "config.json"
    found = read_json(path)
    family = next((each for each in DESCRIPTIONS if each == found.get("model_type")), None)
    if family is None:
        raise CheckpointError(
            f"{path} describes a model of type {shown(repr(found.get('model_type')), 40)}; this program reads "
            f"{', '.join(map(repr, DESCRIPTIONS))}."
        )
    names = DESCRIPTIONS[family]
    given = _with_rope(found) if family == "gpt_neox" else found
    for name, (usual, wanted) in names.computed.items():
        if given.get(name, usual) != wanted:
            is_now = shown(repr(given.get(name, usual)), 40)
            raise CheckpointError(f"{path} has {name} {is_now}; this program computes {wanted}.")
    activation = found.get(*names.activation)
    if not isinstance(activation, str) or activation not in THEIR_ACTIVATIONS:
        raise CheckpointError(
            f"{path} has the activation {shown(repr(activation), 40)}; this program has {', '.join(THEIR_ACTIVATIONS)}."
        )
    try:
        dim, inner = found[names.dim], found.get(names.inner)
        if inner not in (None, 4 * dim):
            raise ConfigError(f"its MLP has {inner} channels; those of this program have {4 * dim}.")
        sizes = ModelConfig(
            ctx=found[names.ctx], dim=dim, layers=found[names.layers], heads=found[names.heads],
            activation=THEIR_ACTIVATIONS[activation],  # type: ignore[arg-type]
            dropout=float(found.get(*names.dropout)), vocab_size=found["vocab_size"],
        )  # fmt: skip
        config = replace(sizes, **OTHERS.get(family, _nothing)(found))
        tensors = our_tensors(family, our_names(read_folder(folder)), config.heads)
        # with tied embeddings, transformers does not read a head that is stored nevertheless
        tie = found.get("tie_word_embeddings", names.tied) or ("lm_head.weight" in tensors and is_tied(tensors))
        return Foreign(replace(config, tie=bool(tie)), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is incomplete: {type(error).__name__}: {shown(error)}.") from None
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _nothing(found: Found) -> Found:
    return {}


def _rotary(found: Found) -> Found:
    return {"positions": "rotary"}


def _windows(found: Found) -> Found:
    """Return our options for GPT-Neo's layers of local attention. Raises ConfigError for a pattern that ours have not.

    Its attention_types are lists of kinds, each with how often it is repeated.
    """
    layers, window, ctx = found["num_layers"], found.get("window_size", 256), found["max_position_embeddings"]
    types = found.get("attention_types") or [[["global", "local"], 12]]
    kinds: list[Any] = []
    for repeated, times in types:
        for _ in range(times):
            kinds += repeated
            if not repeated or len(kinds) > layers:
                break
    if len(kinds) != layers or any(kind not in ("global", "local") for kind in kinds):
        raise ConfigError(f"its attention_types are not those of {layers} layers.")
    if "local" not in kinds or window >= ctx:
        return {}
    for which in get_args(WindowLayers):
        pattern = ModelConfig(ctx=2, layers=layers, window=1, window_layers=which).windows
        if [kind == "local" for kind in kinds] == [bool(window) for window in pattern]:
            return {"window": window, "window_layers": which}
    raise ConfigError(
        f"its layers {', '.join(str(i) for i, kind in enumerate(kinds) if kind == 'local')} see {window} positions; "
        f"this program has such windows in all layers or in every second one, or reads contexts of up to {window}."
    )


OTHERS: dict[str, Callable[[Found], Found]] = {"gpt_neox": _rotary, "gpt_neo": _windows}


def _with_rope(found: Found) -> Found:
    """Return a config.json of GPT-NeoX with the names of version 4; version 5 has its rotations in rope_parameters."""
    rope = found.get("rope_parameters")
    if not isinstance(rope, dict):
        return found
    kind = rope.get("rope_type", "default")
    return found | {
        "rotary_pct": rope.get("partial_rotary_factor", 0.25), "rotary_emb_base": rope.get("rope_theta", BASE),
        "rope_scaling": None if kind == "default" else kind,
    }  # fmt: skip
