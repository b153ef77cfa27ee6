"""What the documentation says about this model and others, such as nanoGPT: "Differences" in docs/model.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.training.schedule import learning_rate

CONFIG = ModelConfig(ctx=64, dim=64, layers=8, heads=2, vocab_size=65)


def test_biases() -> None:
    """There are biases in every linear layer and norm, except for the output projection, or nowhere."""
    names, without = Parameters(CONFIG).keys(), Parameters(ModelConfig(vocab_size=65, bias=False)).keys()
    assert {name.rsplit(".", 1)[0] for name in names if name.endswith(".bias")} == {
        name.rsplit(".", 1)[0] for name in names
    } - {"wte", "wpe"}
    assert not any(name.endswith(".bias") for name in without)


def test_initial_weights() -> None:
    """Those of the residual projections, 16 of them, are 1/4 as large as the others."""
    for tie in (True, False):
        config = ModelConfig(ctx=64, dim=64, layers=8, heads=2, vocab_size=65, tie=tie)
        for name, view in Parameters.initial(config, 1).items():
            if view.ndim == 2:
                wanted = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
                assert np.std(view, dtype=float) == pytest.approx(wanted, rel=4 / math.sqrt(2 * view.size)), name
                assert abs(np.mean(view, dtype=float)) < 4 * wanted / math.sqrt(view.size), name
            else:
                assert np.all(view == float("ln" in name and name.endswith("weight"))), name


def test_the_first_step_of_the_warmup() -> None:
    assert learning_rate(1, steps=1000, lr=1.0, min_lr=0.1, warmup=50) == 1 / 50


def test_gelu_is_the_approximation(backend: Backend) -> None:
    x = np.linspace(-4, 4, 101)[None]
    out = np.empty_like(x)
    backend.gelu_forward(out, x)
    exact = np.array([[0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x[0].tolist()]])
    assert 1e-4 < np.abs(out - exact).max() < 6e-4


def test_top_k_takes_the_first_of_equals(backend: Backend) -> None:
    logits = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    options = {"temperature": 1.0, "top_k": 2, "top_p": 1.0}
    drawn = {backend.sample_token(logits, **options, noise=noise) for noise in np.linspace(0, 0.999, 50)}
    assert drawn == {1, 3}


def test_post_norm_ends_with_ln_f(backend: Backend) -> None:
    """It scales what the last block has normalized, so the logits follow it."""
    config = ModelConfig(ctx=8, dim=8, layers=1, heads=2, vocab_size=5, norm="post", dtype="float64")
    weights, tokens = Parameters.initial(config, 1), np.array([[0, 1, 2, 3]], np.int32)
    before = GPT(config, backend, weights).logits(tokens)
    weights["ln_f.weight"][...] *= 3
    np.testing.assert_allclose(GPT(config, backend, weights).logits(tokens), 3 * before, rtol=1e-12, atol=1e-15)
    weights["h.0.ln_2.weight"][...] *= 7  # which ln_f takes back
    np.testing.assert_allclose(GPT(config, backend, weights).logits(tokens), 3 * before, rtol=1e-4, atol=1e-9)


def test_defaults_of_the_recipe() -> None:
    config = TrainConfig()
    assert (config.model.bias, config.model.activation, config.model.norm) == (True, "gelu", "pre")
