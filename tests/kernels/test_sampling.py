"""Drawing a token from logits."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import each_backend
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.rng import uniform


def draw(backend: Backend, logits: object, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    return backend.sample_token(
        np.asarray(logits), temperature=temperature, top_k=top_k, top_p=top_p, noise=noise
    )


@each_backend
@given(
    logits=st.lists(st.floats(-50, 50), min_size=1, max_size=30), temperature=st.floats(0.01, 10),
    top_k=st.integers(0, 40), top_p=st.floats(0, 1), noise=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_top_k_and_top_p_are_kept_to(
    name: str, logits: list[float], temperature: float, top_k: int, top_p: float, noise: float
) -> None:
    array = np.array(logits)
    token = draw(get_backend(name), array, temperature, top_k, top_p, noise)
    likelier = array > array[token]
    if top_k:
        assert likelier.sum() < top_k
    scores = np.exp((array - array.max()) / temperature)
    assert scores[likelier].sum() / scores.sum() < top_p + 1e-12


def test_tokens_come_with_the_model_s_probabilities(backend: Backend) -> None:
    logits = np.log(np.array([0.5, 0.1, 0.4]))
    grid = (np.arange(1000) + 0.5) / 1000
    found = np.bincount([draw(backend, logits, 1.0, 0, 1.0, noise) for noise in grid], minlength=3)
    assert found.tolist() == [500, 100, 400]
    found = np.bincount([draw(backend, logits, 1.0, 2, 1.0, noise) for noise in grid], minlength=3)
    assert found.tolist() == pytest.approx([556, 0, 444], abs=1)
    found = np.bincount([draw(backend, logits, 1.0, 0, 0.6, noise) for noise in grid], minlength=3)
    assert found.tolist() == pytest.approx([556, 0, 444], abs=1)
    assert draw(backend, logits, 1.0, 0, 1.0, np.nextafter(1.0, 0.0)) == 1


def test_of_equal_logits_the_first_comes_first(backend: Backend, dtype: str) -> None:
    logits = np.array([1, 3, 3, 1, 3], dtype)
    assert [draw(backend, logits, 1.0, 3, 1.0, noise) for noise in (0.1, 0.5, 0.9)] == [1, 2, 4]
    assert draw(backend, logits, 0.0, 0, 1.0, 0.9) == 1
    assert [draw(backend, np.zeros(4, dtype), 1.0, 2, 1.0, noise) for noise in (0.0, 0.5)] == [0, 1]
    # probabilities that add up to top_p exactly: no more than needed
    assert [draw(backend, np.zeros(4, dtype), 1.0, 0, 0.5, noise) for noise in (0.4, 0.99)] == [0, 1]


@pytest.mark.parametrize("top_p", [0.0, 5e-324, 1e-300])
def test_the_likeliest_is_always_kept(backend: Backend, dtype: str, top_p: float) -> None:
    for V in (1, 2, 65, 4099):
        logits = np.random.default_rng(V).normal(size=V).astype(dtype)
        for top_k in (0, 1, 7):
            assert draw(backend, logits, 1.0, top_k, top_p, 0.999) == logits.argmax()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_logit_that_is_not_finite_is_told(backend: Backend, dtype: str, bad: float, temperature: float) -> None:
    for place in range(3):
        logits = np.zeros(3, dtype)
        logits[place] = bad
        assert draw(backend, logits, temperature, 0, 1.0, 0.5) == -1


def test_the_numbers_to_draw_with_are_those_of_splitmix64() -> None:
    """Its first numbers from the seed 1234567, as in the author's program (Vigna, public domain)."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [uniform(1234567, index) for index in range(5)] == [(number >> 11) / 2**53 for number in first]


def test_both_backends_draw_the_same(dtype: str) -> None:
    """Thousands of distributions, flat and sharp, with ties and without, at the ends of every range."""
    generator, numpy, numba = np.random.default_rng(0), get_backend("numpy"), get_backend("numba")
    for index in range(3000):
        logits = generator.normal(0.0, generator.choice([1e-9, 1.0, 10.0]), generator.integers(1, 80))
        if index % 3 == 0:
            logits = np.round(logits)
        settings = (
            generator.choice([0.0, 5e-324, 0.1, 0.8, 1.0, 3.0]), int(generator.choice([0, 1, 3, 10, 100])),
            generator.choice([1.0, 0.9, 0.5, 0.25, 1e-9, 0.0]),
            generator.choice([0.0, 0.5, 1 - 2**-53, generator.random()]),
        )  # fmt: skip
        logits = logits.astype(dtype)
        tokens = [draw(backend, logits, *settings) for backend in (numpy, numba)]
        assert tokens[0] == tokens[1], (index, settings)


def test_a_large_vocabulary(dtype: str) -> None:
    generator, numpy, numba = np.random.default_rng(1), get_backend("numpy"), get_backend("numba")
    for top_k, top_p in ((0, 1.0), (40, 1.0), (0, 0.9), (50_000, 0.999)):
        logits = generator.normal(0.0, 2.0, 50_257).astype(dtype)
        for noise in (0.1, 0.9999):
            tokens = [draw(backend, logits, 1.0, top_k, top_p, noise) for backend in (numpy, numba)]
            assert tokens[0] == tokens[1]
