"""GGUF: one file that llama.cpp opens, with the weights and the vocabulary.

llama.cpp's GPT-2 is ours, with its own names and with the matrices of linear layers as output x input. Of its kinds of
vocabulary, that of RWKV fits: it takes the longest token that a text begins with, and these are single characters. It
also has no token that ends a text. With the others, the second or eleventh character would end it: there the numbers
of special tokens have a default, and it cannot be switched off.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, ConfigError
from ..files import flush, mode, refuse_nul, replacing, writing
from ..model.parameters import Parameters
from ..naming import option
from .exporting import with_biases
from .hub import EPSILON, refuse_without_counterpart, refuse_without_tokenizer

Array = NDArray[Any]

NORMAL = 1  # a kind of token, as the format numbers them
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}  # how the vocabulary writes characters
# Our names of what a tensor belongs to -> theirs; {} is the layer.
NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output",
    "ln_1": "blk.{}.attn_norm", "attn.c_attn": "blk.{}.attn_qkv", "attn.c_proj": "blk.{}.attn_output",
    "ln_2": "blk.{}.ffn_norm", "mlp.c_fc": "blk.{}.ffn_up", "mlp.c_proj": "blk.{}.ffn_down",
}  # fmt: skip


def export_gguf(parameters: Parameters, tokenizer: Vocabulary, name: str, path: Path) -> None:
    """Write a model as a new GGUF file, with weights in float32; `name` is its name there.

    Raises ConfigError for a model that llama.cpp has no counterpart of, or if the package gguf is not installed, and
    CheckpointError if the file exists or cannot be written.
    """
    refuse_without_counterpart(parameters.config)
    if parameters.config.activation != "gelu":
        raise ConfigError(
            f"A model with {option('activation', parameters.config.activation)} has no counterpart in llama.cpp, whose "
            f"GPT-2 has {option('activation', 'gelu')}."
        )
    refuse_without_tokenizer(tokenizer)
    tokens = [ESCAPES.get(character, character) for character in tokenizer.alphabet]
    parameters = with_biases(parameters)
    gguf = _package()
    refuse_nul(path, "a file")
    with writing(path):
        if mode(path):
            raise CheckpointError(f"{path} exists; choose another file with {option('to')}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as place:
            writer = gguf.GGUFWriter(place, "gpt2")
            with contextlib.closing(writer):
                _describe(writer, parameters.config, name)
                writer.add_tokenizer_model("rwkv")
                writer.add_token_list(tokens)
                writer.add_token_types([NORMAL] * len(tokens))
                for tensor, view in parameters.items():
                    writer.add_tensor(their_name(tensor), _stored(tensor, view))
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            with open(place, "rb+") as file:
                flush(file.fileno())


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise ConfigError(
            f"{option('format', 'gguf')} needs the package gguf ({error}): pip install 'bevia-fast[gguf]'."
        ) from error


def _describe(writer: Any, config: ModelConfig, name: str) -> None:
    writer.add_name(name)
    writer.add_context_length(config.ctx)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(4 * config.dim)
    writer.add_head_count(config.heads)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_file_type(0)  # all weights in float32


def their_name(name: str) -> str:
    """Return the name of a tensor in GGUF."""
    layer, (owner, kind) = "", name.rsplit(".", 1)
    if owner.startswith("h."):
        _, layer, owner = owner.split(".", 2)
    return f"{NAMES[owner].format(layer)}.{kind}"


def _stored(name: str, view: Array) -> Array:
    linear = view.ndim == 2 and name.startswith("h.")
    return np.ascontiguousarray(view.T if linear else view, np.float32)
