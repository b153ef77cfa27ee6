"""GGUF: one file that llama.cpp opens, with the weights and the vocabulary.

llama.cpp's GPT-2 is ours, with its own names and with the matrices of linear layers as output x input. Of its kinds of
vocabulary, that of RWKV fits: it takes the longest token that a text begins with, and these are single characters. It
also has no token that ends a text. With the others, the second or eleventh character would end it: there the numbers
of special tokens have a default, and it cannot be switched off. For the same reason, a byte-pair encoding, for which
only GPT-2's kind fits, needs a token of its own for the end of a text.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..data.bpe import BPETokenizer
from ..data.bytelevel import byte_characters
from ..data.tokenizer import Tokenizer
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, ConfigError
from ..files import flush, mode, refuse_nul, replacing, writing
from ..model.parameters import Parameters
from ..naming import option
from .exporting import with_biases
from .families import family_of
from .hub import EPSILON, refuse_without_tokenizer

Array = NDArray[Any]

NORMAL, CONTROL = 1, 3  # kinds of tokens, as the format numbers them
END_OF_TEXT = "<|endoftext|>"
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
    family, others = family_of(parameters.config), {"gpt_neox": ("positions", "learned"), "gpt_neo": ("window", 0)}
    name_of, usual = others.get(family, ("activation", "gelu"))
    found = getattr(parameters.config, name_of)
    if found != usual:
        raise ConfigError(
            f"A model with {option(name_of, found)} has no counterpart in llama.cpp's GPT-2, which has "
            f"{option(name_of, usual)}."
        )
    refuse_without_tokenizer(tokenizer)
    end = _end_of_text(tokenizer)
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
                _write_tokens(writer, tokenizer, end)
                for tensor, view in parameters.items():
                    writer.add_tensor(their_name(tensor), _stored(tensor, view))
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            with open(place, "rb+") as file:
                flush(file.fileno())


def _end_of_text(tokenizer: Vocabulary) -> int:
    """Return the token of a BPE that ends a text. Raises ConfigError if it has none, or words of another kind."""
    if not isinstance(tokenizer, BPETokenizer):
        return -1
    added = tokenizer.added()
    if END_OF_TEXT not in added or not tokenizer.has_words_of_gpt2():
        raise ConfigError(
            f"A model with {option('tokens', tokenizer.name)} has no counterpart in llama.cpp unless its vocabulary "
            f"has GPT-2's words and its {END_OF_TEXT}: llama.cpp would take another token for the end of a text."
        )
    return added[END_OF_TEXT]


def _write_tokens(writer: Any, tokenizer: Vocabulary, end: int) -> None:
    """Write the vocabulary; `end` is the token of a BPE that ends a text."""
    types = [NORMAL] * len(tokenizer)
    if isinstance(tokenizer, BPETokenizer):
        written = byte_characters()
        tokens = ["".join(written[byte] for byte in tokenizer.token_bytes(token)) for token in range(len(tokenizer))]
        for token in (token for token, text in enumerate(tokens) if not text):
            tokens[token] = f"[PAD{token}]"  # one that the model has and the vocabulary does not
        for text, token in tokenizer.added().items():
            tokens[token], types[token] = text, CONTROL
        merges = tokenizer.about["model"]["merges"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
        for add in (writer.add_bos_token_id, writer.add_eos_token_id):
            add(end)
        writer.add_add_bos_token(False)
    else:
        writer.add_tokenizer_model("rwkv")
        if isinstance(tokenizer, Tokenizer):
            tokens = [ESCAPES.get(character, character) for character in tokenizer.alphabet]
        else:
            tokens = [f"\\x{byte:02x}" for byte in range(len(tokenizer))]
    writer.add_token_list(tokens)
    writer.add_token_types(types)


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
