"""What Hugging Face's transformers reads beside model.safetensors: the model and its characters, as its own JSON files.

Our model is the GPT-2 of transformers with other sizes, so nothing is converted but names:

    config.json              GPT2Config: sizes, activation, dropout
    tokenizer.json           a vocabulary of words (WordLevel), where each character is a word; with other tokens, a BPE
    tokenizer_config.json    that the file above is to be read as it stands
    generation_config.json   how text is written by default: as `bevia-fast generate` writes it

Rotary positions, once there are any, will be GPT-NeoX there: `_CONFIGS` is the place.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import GenerateConfig, ModelConfig
from ..data.bpe import BPETokenizer
from ..data.bytelevel import BYTES, byte_characters
from ..data.given import tokenizer_json
from ..data.tokenizer import Tokenizer
from ..data.vocabulary import Vocabulary
from ..errors import ConfigError
from ..files import HUB, write_atomically
from ..model.parameters import INIT_STD
from ..naming import option

# Our names of activations -> theirs.
ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu"}
EPSILON = 1e-5  # of layer normalization, as in the kernels


def hub_files(config: ModelConfig, tokenizer: Vocabulary) -> dict[str, str]:
    """Return the files that transformers reads beside the weights: {name: JSON}.

    Raises ConfigError for a model that has no counterpart there.
    """
    refuse_without_counterpart(config)
    contents = (_CONFIGS["gpt2"](config), _vocabulary(tokenizer), _tokenizer(config), _GENERATION)
    return {
        name: content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        for name, content in zip(HUB, contents, strict=True)
    }


def write_hub_files(folder: Path, config: ModelConfig, tokenizer: Vocabulary) -> None:
    """Write these files into the folder of a model, each atomically; none of them if the model has no counterpart.

    Raises CheckpointError if one cannot be written.
    """
    with contextlib.suppress(ConfigError):
        for name, text in hub_files(config, tokenizer).items():
            write_atomically(folder / name, text.encode())


def refuse_without_counterpart(config: ModelConfig) -> None:
    """Raise ConfigError for a model that transformers has no counterpart of."""
    if config.norm != "pre":
        raise ConfigError(
            f"A model with {option('norm', config.norm)} has no counterpart in other programs, whose GPT-2 normalizes "
            f"before each branch; only models with {option('norm', 'pre')} can be exported."
        )
    changes = {
        option("positions", config.positions): config.positions != "learned",
        option("window", config.window): any(config.windows),
        option("scale", config.scale): not config.scale,
        option("residual", config.residual): not config.residual,
    }
    for change, made in changes.items():
        if made:
            raise ConfigError(f"A model with {change} has no counterpart in other programs' GPT-2.")


def refuse_without_tokenizer(tokenizer: Vocabulary) -> None:
    """Raise ConfigError for an alphabet that no file of UTF-8 can hold."""
    if isinstance(tokenizer, Tokenizer) and any("\ud800" <= character <= "\udfff" for character in tokenizer.alphabet):
        raise ConfigError("The alphabet has half of a surrogate pair, which other programs' tokenizers cannot hold.")


def _gpt2(config: ModelConfig) -> dict[str, Any]:
    """Return a GPT2Config; what is left out has the value that we want by default."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.ctx,
        "n_ctx": config.ctx,  # llama.cpp's converter reads this one
        "n_embd": config.dim,
        "n_layer": config.layers,
        "n_head": config.heads,
        "activation_function": ACTIVATIONS[config.activation],
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "layer_norm_epsilon": EPSILON,
        "initializer_range": INIT_STD,
        "tie_word_embeddings": config.tie,
        "bos_token_id": None,  # by default the 50,256th, which a small vocabulary does not have
        "eos_token_id": None,
        "torch_dtype": config.dtype,  # read by versions 4 and 5
    }


_CONFIGS: dict[str, Callable[[ModelConfig], dict[str, Any]]] = {"gpt2": _gpt2}


_GENERATION = {
    "do_sample": True,
    "temperature": GenerateConfig.temperature,
    "top_k": GenerateConfig.top_k,
    "top_p": GenerateConfig.top_p,
}


def _tokenizer(config: ModelConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.ctx,
        "clean_up_tokenization_spaces": False,
    }


def _vocabulary(tokenizer: Vocabulary) -> dict[str, Any] | str:
    """Return a tokenizer of the `tokenizers` package that maps text to the same tokens. That of a BPE is kept as it is.

    With characters, it raises an error for one that is not in the alphabet. A byte-pair encoding without merges, which
    would also encode single characters, would drop it in silence. With bytes, that is what is needed.
    """
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.content
    if not isinstance(tokenizer, Tokenizer):
        return tokenizer_json(dict(zip(byte_characters(), range(BYTES), strict=True)), [])
    refuse_without_tokenizer(tokenizer)
    characters = {character: index for index, character in enumerate(tokenizer.alphabet)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},  # without spaces between the words
        "model": {"type": "WordLevel", "vocab": characters, "unk_token": "<unknown>"},
    }  # fmt: skip
