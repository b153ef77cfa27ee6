"""Writing text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.config import GenerateConfig, ModelConfig
from bevia_fast.errors import DataError, StoppedRun
from bevia_fast.kernels import Backend, get_backend
from bevia_fast.model import GPT
from bevia_fast.parameters import Parameters
from bevia_fast.sample import choose, stream
from bevia_fast.tokenizer import Tokenizer

ALPHABET = "\n abcdefgh"


def model_of(backend: Backend, **options: Any) -> GPT:
    options = {"ctx": 8, "dim": 12, "layers": 2, "heads": 2, "dtype": "float64", **options}
    config = ModelConfig(vocab_size=len(ALPHABET), **options)
    parameters = Parameters.initial(config, 3)
    parameters.flat *= 20  # far from the uniform distribution of a fresh model
    return GPT(config, backend, parameters)


def text_of(model: GPT, use_cache: bool = True, **options: Any) -> str:
    config = GenerateConfig(run="", **{"length": 60, "temperature": 1.0, **options})
    return "".join(stream(model, Tokenizer(ALPHABET), config, use_cache=use_cache))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("ctx", [1, 2, 5, 8])
def test_the_cache_changes_nothing_also_past_the_context(backend: Backend, norm: str, ctx: int) -> None:
    model = model_of(backend, norm=norm, ctx=ctx)
    for options in ({"temperature": 0.0}, {"prompt": "abc"}, {"prompt": "abcdefgh" * 3, "seed": 5}):
        assert text_of(model, **options) == text_of(model, use_cache=False, **options)


def test_the_same_seed_writes_the_same_text() -> None:
    model = model_of(get_backend("numpy"))
    assert text_of(model, seed=1) == text_of(model, seed=1)
    assert text_of(model, seed=1) != text_of(model, seed=2)
    assert text_of(model, seed=1).startswith(text_of(model, seed=1, length=10))
    assert len(text_of(model, length=500)) == 500


def test_greedy_and_its_equivalents() -> None:
    model = model_of(get_backend("numpy"))
    greedy = text_of(model, temperature=0.0)
    assert greedy == text_of(model, temperature=0.0, seed=9)
    assert greedy == text_of(model, top_k=1, temperature=5.0)
    assert greedy == text_of(model, top_p=1e-9)
    assert greedy == text_of(model, temperature=5e-324)


def test_an_empty_prompt_is_a_new_line() -> None:
    model = model_of(get_backend("numpy"))
    assert text_of(model, prompt="") == text_of(model, prompt="\n")


def test_bad_prompts_and_bad_numbers_are_refused_at_once() -> None:
    model = model_of(get_backend("numpy"))
    with pytest.raises(DataError, match="The prompt has 'é'"):
        stream(model, Tokenizer(ALPHABET), GenerateConfig(run="", prompt="é"))
    with pytest.raises(StoppedRun, match="not finite"):
        choose(np.array([0.0, np.nan]), 1.0, 0, 1.0, 0.5)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=30), st.floats(0.01, 10), st.integers(0, 40), st.floats(0.01, 1),
    st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_choose_keeps_to_top_k_and_top_p(
    logits: list[float], temperature: float, top_k: int, top_p: float, noise: float
) -> None:
    array = np.array(logits)
    token = choose(array, temperature, top_k, top_p, noise)
    likelier = array > array[token]
    if top_k:
        assert likelier.sum() < top_k
    scores = np.exp((array - array.max()) / temperature)
    assert scores[likelier].sum() / scores.sum() < top_p + 1e-12


def test_choose_draws_with_the_model_s_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.1, 0.4]))
    grid = (np.arange(1000) + 0.5) / 1000
    found = np.bincount([choose(logits, 1.0, 0, 1.0, noise) for noise in grid], minlength=3)
    assert found.tolist() == [500, 100, 400]
    found = np.bincount([choose(logits, 1.0, 2, 1.0, noise) for noise in grid], minlength=3)
    assert found.tolist() == pytest.approx([556, 0, 444], abs=1)
    found = np.bincount([choose(logits, 1.0, 0, 0.6, noise) for noise in grid], minlength=3)
    assert found.tolist() == pytest.approx([556, 0, 444], abs=1)
    assert choose(logits, 1.0, 0, 1.0, np.nextafter(1.0, 0.0)) == 1
