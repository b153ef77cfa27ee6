"""Generating text."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers import assert_close

from bevia_fast.config import GenerateConfig, ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import DataError, StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.decoder import Decoder
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.model.writing import sliding_model, stream

ALPHABET = "\n abcdefgh"


def model_of(backend: Backend, **options: Any) -> GPT:
    options = {"ctx": 8, "dim": 12, "layers": 2, "heads": 2, "dtype": "float64", **options}
    config = ModelConfig(vocab_size=len(ALPHABET), **options)
    parameters = Parameters.initial(config, 3)
    parameters.flat *= 20  # far from the uniform distribution of a fresh model
    random = np.random.default_rng(4)
    for name, view in parameters.items():
        if view.ndim == 1:  # a fresh model's biases are 0, so that it would not matter where they are added
            view[...] = random.normal(float("weight" in name), 0.5, view.shape)
    return GPT(config, backend, parameters)


def text_of(model: GPT, use_cache: bool = True, **options: Any) -> str:
    config = GenerateConfig(run="", **{"length": 60, "temperature": 1.0, **options})
    return "".join(stream(model, Tokenizer(ALPHABET), config, use_cache=use_cache))


MODELS: list[dict[str, Any]] = [
    {},
    {"norm": "post"},
    {"activation": "relu", "tie": False},
    {"norm": "post", "activation": "relu", "bias": False},
    {"bias": False, "tie": False, "heads": 1, "layers": 1},
    {"dim": 100, "heads": 5, "layers": 3},  # the number of hidden units is not a multiple of the vector width
    {"positions": "rotary"},
    {"positions": "rotary", "norm": "post", "activation": "relu", "bias": False, "layers": 3},
    {"window": 2, "layers": 3},
    {"activation": "gelu_erf"},
    {"window": 3, "window_layers": "all", "norm": "post"},
    {"window": 4, "window_layers": "all", "positions": "rotary"},
    {"positions": "rotary", "scale": False, "residual": False},
]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"prompt": "abc", "temperature": 2.0, "top_k": 3},
    {"prompt": "abcdefgh" * 3, "seed": 5, "top_p": 0.7},
]


@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("ctx", [1, 2, 5, 8])
def test_the_cache_changes_nothing_even_past_the_context(
    backend: Backend, options: dict[str, Any], ctx: int, dtype: str
) -> None:
    model = model_of(backend, **options, ctx=ctx, dtype=dtype)
    for settings in SETTINGS:
        assert text_of(model, **settings) == text_of(model, use_cache=False, **settings)


@pytest.mark.parametrize("length", range(1, 25))
def test_a_prompt_of_any_length(length: int) -> None:
    """Shorter than the context, as long, longer, and so long that it reaches into the next window."""
    model = model_of(get_backend("numba"))
    prompt = ("hgfedcba" * 3)[:length]
    assert text_of(model, prompt=prompt) == text_of(model, use_cache=False, prompt=prompt)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 24])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_prompt_of_any_length_in_rings(length: int, window: int, positions: str) -> None:
    model = model_of(get_backend("numba"), positions=positions, window=window)
    prompt = ("hgfedcba" * 3)[:length]
    assert text_of(model, prompt=prompt, length=30) == text_of(model, use_cache=False, prompt=prompt, length=30)


@pytest.mark.parametrize(("ctx", "window", "which"), [(1, 0, "all"), (3, 0, "all"), (8, 0, "all"), (8, 3, "all"),
                                                     (8, 2, "alternate")])  # fmt: skip
def test_a_ring_gives_the_logits_of_attention_that_slides(
    backend: Backend, ctx: int, window: int, which: str
) -> None:
    """Far past the context, from the scores of a plain band: keys of the last positions only."""
    model = model_of(backend, positions="rotary", ctx=ctx, layers=3, window=window, window_layers=which)
    tokens = np.random.default_rng(1).integers(0, len(ALPHABET), 5 * ctx + 3).astype(np.int32)
    decoder, ignored = Decoder(model), np.zeros(1, np.int32)
    found = [decoder.read(tokens[:1]).copy()]
    for token in tokens[1:].tolist():
        assert decoder.write(ignored, token, GenerateConfig(run=""), 0) == 1
        found.append(decoder.logits.copy())
    wanted = sliding_model(model, tokens.size, ctx).logits(tokens[None])[0]
    assert_close("logits", np.array(found), wanted, 1e-10)
    assert decoder.keys.shape == (1, 3, 2, window if which == "all" and window else ctx, 6)
    if ctx > 1 and which == "all" and not window:  # it matters that attention slides
        assert np.abs(sliding_model(model, tokens.size, tokens.size).logits(tokens[None])[0] - wanted).max() > 1e-3


@pytest.mark.parametrize("tie", [False, True])
def test_the_last_row_of_a_prompt_has_the_same_bits_alone_and_among_others(tie: bool, dtype: str) -> None:
    model = model_of(get_backend("numba"), ctx=24, dim=100, heads=5, tie=tie, dtype=dtype)
    decoder, tokens = Decoder(model), np.arange(24, dtype=np.int32) % len(ALPHABET)
    for T in range(1, 25):
        assert decoder.read(tokens[:T]).tobytes() == model.logits(tokens[None, :T])[0, -1].tobytes()


def test_both_backends_write_the_same_text() -> None:
    """One of them draws with several threads, the other without."""
    options: dict[str, Any] = {"ctx": 16, "dim": 64, "heads": 4, "layers": 3}
    numba, numpy = (model_of(get_backend(name), **options) for name in ("numba", "numpy"))
    assert text_of(numba, length=3000) == text_of(numpy, length=3000)


def test_logits_that_are_not_finite_stop_the_text(backend: Backend) -> None:
    model = model_of(backend)
    model.parameters["h.1.mlp.c_proj.bias"][3] = np.nan
    with pytest.raises(StoppedRun, match=r"^The model's logits are not finite; its weights are unusable\.$"):
        text_of(model)
    model = model_of(backend, tie=False)
    model.parameters["wpe.weight"][5:] = np.nan  # first used at the sixth position
    found = []
    with pytest.raises(StoppedRun, match=r"^The model's logits are not finite; its weights are unusable\.$"):
        found += stream(model, Tokenizer(ALPHABET), GenerateConfig(run="", temperature=1.0))
    model.parameters["wpe.weight"][5:] = 0.0
    characters = stream(model, Tokenizer(ALPHABET), GenerateConfig(run="", temperature=1.0, length=5))
    assert len(list(characters)) == 5


def test_memory_does_not_grow_with_the_text(backend: Backend) -> None:
    """Nothing of earlier windows is kept."""
    model = model_of(backend, ctx=8)
    characters = stream(model, Tokenizer(ALPHABET), GenerateConfig(run="", temperature=1.0, length=8000))
    for _ in range(1000):
        next(characters)
    tracemalloc.start()
    for _ in range(1000):
        next(characters)
    gc.collect()  # so that garbage of other tests does not count
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(5000):
        next(characters)
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < before + 20_000
    assert peak < before + 100_000


def test_the_same_seed_writes_the_same_text() -> None:
    model = model_of(get_backend("numpy"))
    assert text_of(model, seed=1) == text_of(model, seed=1)
    assert text_of(model, seed=1) != text_of(model, seed=2)
    assert text_of(model, seed=1).startswith(text_of(model, seed=1, length=10))
    assert len(text_of(model, length=500)) == 500


def test_greedy_sampling_and_its_equivalents() -> None:
    model = model_of(get_backend("numpy"))
    greedy = text_of(model, temperature=0.0)
    assert greedy == text_of(model, temperature=0.0, seed=9)
    assert greedy == text_of(model, top_k=1, temperature=5.0)
    assert greedy == text_of(model, top_p=1e-9)
    assert greedy == text_of(model, temperature=5e-324)


def test_an_empty_prompt_is_a_newline() -> None:
    model = model_of(get_backend("numpy"))
    assert text_of(model, prompt="") == text_of(model, prompt="\n")


def test_bad_prompts_and_bad_numbers_are_refused_at_once() -> None:
    model = model_of(get_backend("numpy"))
    with pytest.raises(DataError, match="The prompt contains 'é'"):
        stream(model, Tokenizer(ALPHABET), GenerateConfig(run="", prompt="é"))
