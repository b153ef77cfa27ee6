"""From another program's tensors, by whatever names, to the weights of a model of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, shown
from ..model.parameters import Parameters, ParameterSpec, parameter_specs
from .alphabets import vocabulary_of

Array = NDArray[Any]

PREFIXES = ("_orig_mod.", "module.", "transformer.")  # of compiled and distributed models, and of those with a head
# The causal mask and the frequencies of rotary positions, which some programs store.
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq")
BY_TOKEN = ("wte.weight", "lm_head.weight")  # a row for each token


@dataclass(frozen=True)
class Foreign:
    """A model of another program: its sizes, its tensors by our names, and how many steps it was trained for."""

    config: ModelConfig
    tensors: Mapping[str, Array]
    step: int = 0


def our_names(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return tensors by GPT-2's names, without prefixes and without masks."""
    found = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(BUFFERS):
            found[name] = tensor
    return found


def input_by_output(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return tensors with the matrices of linear layers transposed: PyTorch's Linear stores them output x input."""
    return {
        name: tensor.T if tensor.ndim == 2 and name.startswith("h.") else tensor for name, tensor in tensors.items()
    }


def is_tied(tensors: Mapping[str, Array]) -> bool:
    """Return whether the output head shares the weights of the token embedding, or repeats them."""
    head = tensors.get("lm_head.weight")
    return head is None or np.array_equal(head, tensors.get("wte.weight", head))


def assembled(path: Path, model: Foreign, tokens: list[str] | str) -> tuple[Parameters, Vocabulary]:
    """Return the weights and the vocabulary of a model whose token i is tokens[i], or of the BPE in a tokenizer.json.

    Raises CheckpointError, which names `path`, if a tensor is missing, unknown, of another shape or not finite.
    """
    tokenizer, order = vocabulary_of(path, tokens, model.config.vocab_size)
    tensors = dict(model.tensors)
    if model.config.tie:
        tensors.pop("lm_head.weight", None)
    _check(path, tensors, parameter_specs(model.config))  # before memory is allocated
    double = all(tensor.dtype == np.float64 for tensor in tensors.values())
    parameters = Parameters(replace(model.config, dtype="float64" if double else "float32"))
    for name, view in parameters.items():
        tensor = tensors[name]
        with np.errstate(over="ignore"):
            view[...] = tensor[order] if name in BY_TOKEN else tensor
        if not np.isfinite(view).all():
            raise CheckpointError(f"{path}: {name} is not finite.")
    return parameters, tokenizer


def _check(path: Path, tensors: Mapping[str, Array], specs: list[ParameterSpec]) -> None:
    """Raise CheckpointError unless the tensors are those of a model, with their shapes."""
    for spec in specs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise CheckpointError(f"{path} has no tensor {spec.name}.")
        if tensor.shape != spec.shape:
            raise CheckpointError(f"{path}: {spec.name} has shape {tensor.shape}; expected {spec.shape}.")
        if tensor.dtype.kind != "f":
            raise CheckpointError(f"{path}: {spec.name} has numbers of type {tensor.dtype}, not weights.")
    more = tensors.keys() - {spec.name for spec in specs}
    if more:
        raise CheckpointError(f"{path} has a tensor {shown(min(more))}, which is not part of such a model.")
