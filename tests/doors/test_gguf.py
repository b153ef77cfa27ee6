"""llama.cpp opens what this program writes, and computes the same, but for the precision of its GELU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import needed
from helpers import random_parameters
from numpy.typing import NDArray
from writing_foreign import sizes

from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors import gguf
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.files import MODEL
from bevia_fast.kernels.numpy_ref import linear
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import save_model
from bevia_fast.runs.trained import Run, generate

TEXT = "the cat\nsat\r\n\ton a\\n mat, é 言葉 🙂 \\x41 \u2581 '\"\u00a0\u00ad<>"
ALPHABET = "".join(sorted(set(TEXT)))


def model(scale: float = 0.3, **changes: Any) -> Parameters:
    weights = random_parameters(sizes(ALPHABET, ctx=64, dim=32, heads=2, **changes))
    for view in weights.values():
        view *= scale if view.ndim == 2 else 1.0
    return weights


def gelu_of_llama_cpp(x: NDArray[Any]) -> NDArray[Any]:
    """Its GELU is a table over all numbers in half precision, within -10 .. 10."""
    half = x.astype(np.float16).astype(np.float32)
    u = math.sqrt(2 / math.pi) * half * (1 + 0.044715 * half * half)
    looked_up = (0.5 * half * (1 + np.tanh(u))).astype(np.float16).astype(x.dtype)
    return np.where(x <= -10, 0, np.where(x >= 10, x, looked_up))


def log_probabilities(weights: Parameters, tokenizer: Tokenizer) -> NDArray[Any]:
    """Return those of the character after TEXT."""
    logits = GPT(weights.config, open_backend("numpy"), weights).logits(tokenizer.encode(TEXT)[None])[0, -1]
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def server(path: Path) -> Any:
    llama = needed("xllamacpp")
    options = llama.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel, options.cpuparams.n_threads = str(path), 64, 1, 1
    options.cache_type_k = options.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    options.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return llama.Server(options)


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"tie": False}, {"dtype": "float64"}], ids=str)
def test_llama_cpp_computes_the_same(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("gguf")
    weights, tokenizer, path = model(**changes), Tokenizer(ALPHABET), tmp_path / "model.gguf"
    gguf.export_gguf(weights, tokenizer, "model", path)
    theirs = server(path)
    answer = theirs.handle_completions({"prompt": TEXT, "max_tokens": 1, "n_probs": len(ALPHABET), "temperature": 0.0})
    assert answer["usage"]["prompt_tokens"] == len(TEXT)
    found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert {each["id"]: each["token"] for each in found} == dict(enumerate(ALPHABET))
    got = np.zeros(len(ALPHABET))
    for each in found:
        got[each["id"]] = each["logprob"]
    exact = abs(got - log_probabilities(weights, tokenizer)).max()
    monkeypatch.setitem(linear.ACTIVATIONS, "gelu", gelu_of_llama_cpp)
    # where a number lies between two halves, rounding may go either way
    assert abs(got - log_probabilities(weights, tokenizer)).max() <= 1e-4
    assert exact <= 2e-3  # with weights ten times as large as those of a trained model


def test_it_writes_the_same_text_without_chance(tmp_path: Path) -> None:
    needed("gguf")
    weights, tokenizer, path = model(0.5), Tokenizer(ALPHABET), tmp_path / "model.gguf"
    gguf.export_gguf(weights, tokenizer, "model", path)
    run = Run(tmp_path, GPT(weights.config, open_backend("numpy"), weights), tokenizer)
    for prompt in ("the", "cat, ", "\n"):  # a comma is the third character: no token ends the text
        answer = server(path).handle_completions({"prompt": prompt, "max_tokens": 30, "temperature": 0.0})["choices"][0]
        assert prompt + answer["text"] == generate(run, prompt, length=30, temperature=0.0)
        assert answer["finish_reason"] == "length"


def test_the_file_describes_the_model(tmp_path: Path) -> None:
    reader = needed("gguf").GGUFReader
    weights = model(tie=False)
    save_model(tmp_path / MODEL, weights, Tokenizer(ALPHABET), 0)
    assert main(["export", str(tmp_path), "--format", "gguf", "--to", str(tmp_path / "new" / "m.gguf")]) == 0
    found = reader(tmp_path / "new" / "m.gguf")
    wanted = {
        "general.architecture": "gpt2", "general.name": tmp_path.name, "gpt2.context_length": 64,
        "gpt2.embedding_length": 32, "gpt2.block_count": 2, "gpt2.feed_forward_length": 128,
        "gpt2.attention.head_count": 2, "tokenizer.ggml.model": "rwkv",
    }  # fmt: skip
    assert {name: found.get_field(name).contents() for name in wanted} == wanted
    tensors = {tensor.name: tensor.data for tensor in found.tensors}
    assert tensors.keys() == {gguf.their_name(name) for name in weights}
    assert np.array_equal(tensors["blk.1.ffn_up.weight"], weights["h.1.mlp.c_fc.weight"].T)
    assert np.array_equal(tensors["output.weight"], weights["lm_head.weight"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.gguf"]


def test_names() -> None:
    assert gguf.their_name("h.11.attn.c_proj.bias") == "blk.11.attn_output.bias"
    assert gguf.their_name("wte.weight") == "token_embd.weight"


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"

    def refused(kind: type, words: str, alphabet: str = ALPHABET, **changes: Any) -> None:
        weights = random_parameters(sizes(alphabet, **changes))
        with pytest.raises(kind, match=words):
            gguf.export_gguf(weights, Tokenizer(alphabet), "m", path)

    refused(ConfigError, "norm='post' has no counterpart", norm="post")
    refused(ConfigError, "activation='relu' has no counterpart in llama.cpp", activation="relu")
    refused(ConfigError, "activation='gelu_erf' has no counterpart in llama.cpp's GPT-2", activation="gelu_erf")
    refused(ConfigError, "positions='rotary' has no counterpart in llama.cpp's GPT-2", positions="rotary")
    refused(ConfigError, "window=3 has no counterpart in llama.cpp's GPT-2, which has window=0.", window=3)
    refused(ConfigError, "scale=False has no counterpart", scale=False)
    refused(ConfigError, "surrogate", "a\ud800")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gguf", None)
        refused(ConfigError, r"^format='gguf' needs the package gguf \(.*\): pip install 'bevia-fast\[gguf\]'\.$")
    assert list(tmp_path.iterdir()) == []
    needed("gguf")
    path.write_text("mine")
    refused(CheckpointError, r"m\.gguf exists; choose another file with to\.")
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "their_name", lambda name: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            gguf.export_gguf(model(), Tokenizer(ALPHABET), "m", path)
    assert list(tmp_path.iterdir()) == []
