"""What Hugging Face's transformers reads beside model.safetensors: the model and its characters, as its own JSON files.

Our model is the GPT-2 of transformers with other sizes, or its GPT-NeoX or GPT-Neo; see `families`.

    config.json              the family, sizes, activation, dropout
    tokenizer.json           a vocabulary of words (WordLevel), where each character is a word; with other tokens, a BPE
    tokenizer_config.json    that the file above is to be read as it stands
    generation_config.json   how text is written by default: as `bevia-fast generate` writes it
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
from ..model.rotary import BASE
from .families import Family, family_of

# Our names of activations -> theirs.
ACTIVATIONS = {"gelu": "gelu_new", "gelu_erf": "gelu", "relu": "relu"}
EPSILON = 1e-5  # of layer normalization, as in the kernels


def hub_files(config: ModelConfig, tokenizer: Vocabulary) -> dict[str, str]:
    """Return the files that transformers reads beside the weights: {name: JSON}.

    Raises ConfigError for a model that has no counterpart there.
    """
    contents = (_CONFIGS[family_of(config)](config), tokenizer_file(tokenizer), _tokenizer(config), _GENERATION)
    texts = (content if isinstance(content, str) else _json(content) for content in contents)
    return dict(zip(HUB, texts, strict=True))


def write_hub_files(folder: Path, config: ModelConfig, tokenizer: Vocabulary) -> None:
    """Write these files into the folder of a run, each atomically; none of them if transformers cannot open its
    model.safetensors, because the model has no counterpart, or one with other names of weights.

    Raises CheckpointError if one cannot be written.
    """
    with contextlib.suppress(ConfigError):
        if family_of(config) != "gpt2":
            return
        for name, text in hub_files(config, tokenizer).items():
            write_atomically(folder / name, text.encode())


def refuse_without_tokenizer(tokenizer: Vocabulary) -> None:
    """Raise ConfigError for an alphabet that no file of UTF-8 can hold."""
    if isinstance(tokenizer, Tokenizer) and any("\ud800" <= character <= "\udfff" for character in tokenizer.alphabet):
        raise ConfigError("The alphabet has half of a surrogate pair, which other programs' tokenizers cannot hold.")


def _gpt2(config: ModelConfig) -> dict[str, Any]:
    """Return a GPT2Config; what is left out has the value that we want by default."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
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
        **_common(config),
    }


def _gpt_neox(config: ModelConfig) -> dict[str, Any]:
    """Return a GPTNeoXConfig. Version 5 reads rotary_pct and rotary_emb_base, too."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "max_position_embeddings": config.ctx,
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.dim,
        "hidden_act": ACTIVATIONS[config.activation],
        "rotary_pct": 1.0,
        "rotary_emb_base": BASE,
        "use_parallel_residual": False,
        "attention_bias": True,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.dropout,
        "layer_norm_eps": EPSILON,
        **_common(config),
    }


def _gpt_neo(config: ModelConfig) -> dict[str, Any]:
    """Return a GPTNeoConfig. There, too, a query sees its own position and the window_size - 1 before it."""
    return {
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "max_position_embeddings": config.ctx,
        "hidden_size": config.dim,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "attention_types": [[["local" if window else "global"], 1] for window in config.windows],
        "window_size": config.window,
        "activation_function": ACTIVATIONS[config.activation],
        "embed_dropout": config.dropout,
        "attention_dropout": config.dropout,
        "resid_dropout": config.dropout,
        "layer_norm_epsilon": EPSILON,
        **_common(config),
    }


def _common(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "initializer_range": INIT_STD,
        "tie_word_embeddings": config.tie,
        "bos_token_id": None,  # by default numbers that a small vocabulary does not have, or that end a text
        "eos_token_id": None,
        "torch_dtype": config.dtype,  # read by versions 4 and 5
    }


_CONFIGS: dict[Family, Callable[[ModelConfig], dict[str, Any]]] = {
    "gpt2": _gpt2, "gpt_neox": _gpt_neox, "gpt_neo": _gpt_neo,
}  # fmt: skip


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


def tokenizer_file(tokenizer: Vocabulary) -> str:
    """Return a tokenizer.json that maps text to the same tokens. That of a BPE is kept as it is.

    With characters, it raises an error for one that is not in the alphabet. A byte-pair encoding without merges, which
    would also encode single characters, would drop it in silence. With bytes, that is what is needed.
    """
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.content
    if not isinstance(tokenizer, Tokenizer):
        return tokenizer_json(dict(zip(byte_characters(), range(BYTES), strict=True)), [])
    refuse_without_tokenizer(tokenizer)
    characters = {character: index for index, character in enumerate(tokenizer.alphabet)}
    return _json({
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
    })  # fmt: skip


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"
