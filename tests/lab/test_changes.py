"""A model with a part taken out is exact: its gradients are those of its loss, on both backends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_is_gradient, normal, random_parameters

from bevia_fast.config import GenerateConfig, ModelConfig
from bevia_fast.errors import UserError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.lab.changes import changed
from bevia_fast.model.decoder import Decoder
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.playbook.twins import namespace

SMALL = ModelConfig(ctx=4, dim=6, layers=2, heads=2, vocab_size=5, dtype="float64")
TOKENS, TARGETS = np.array([[0, 3, 1, 4], [2, 2, 0, 1]]), np.array([[3, 1, 4, 2], [2, 0, 1, 1]])
WITHOUT = [("scale",), ("residual",), ("scale", "residual")]


def model_without(parts: tuple[str, ...], backend: Backend, config: ModelConfig = SMALL) -> GPT:
    return GPT(config, changed(backend, **dict.fromkeys(parts, False)), random_parameters(config))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("parts", WITHOUT, ids=str)
def test_gradients_are_those_of_the_loss(parts: tuple[str, ...], norm: Any, backend: Backend) -> None:
    config = replace(SMALL, norm=norm)
    model, gradients = model_without(parts, backend, config), Parameters(config)
    for _ in range(4):  # as written, recorded, and replayed twice
        gradients.flat[...] = 0
        model.loss_and_gradients(TOKENS, TARGETS, gradients)
    for name in ("h.0.attn.c_attn.weight", "h.1.attn.c_attn.bias", "h.0.mlp.c_fc.bias", "wpe.weight", "ln_f.weight"):
        assert_is_gradient(name, gradients[name], lambda: model.loss(TOKENS, TARGETS), model.parameters[name])


@pytest.mark.parametrize("parts", WITHOUT, ids=str)
def test_both_backends_agree(parts: tuple[str, ...]) -> None:
    config, found = replace(SMALL, dropout=0.3), []
    for name in ("numba", "numpy"):
        gradients = Parameters(config)
        model = model_without(parts, get_backend(name), config)
        loss = model.loss_and_gradients(TOKENS, TARGETS, gradients, dropout=DropoutStream(1, 2))
        found.append((loss, gradients.flat))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert_close("gradients", found[0][1], found[1][1], 1e-12)


def test_scores_have_no_scale(backend: Backend) -> None:
    """The twin of the text, with the scale divided out."""
    qkv, heads, HS = normal(1, 1, 5, 18), 2, 3
    weights = np.empty((1, heads, 5, 5))
    changed(backend, scale=False).attention_weights(weights, qkv)
    twins = namespace()
    for h in range(heads):
        queries, keys, _ = twins["split_heads"](qkv[0].tolist(), heads)
        scores = [[score * HS**0.5 for score in row] for row in twins["causal_scores"](queries[h], keys[h])]
        assert_close("weights", weights[0, h], np.array(twins["softmax"](scores)[0]), 1e-12)


def test_nothing_reaches_the_next_layer_around_a_branch(backend: Backend) -> None:
    """With the last projection of the MLP 0, the stream after the layer is its bias alone."""
    model = model_without(("residual",), backend)
    model.parameters["h.1.mlp.c_proj.weight"][...] = 0
    acts = model.buffers(2, 4)
    model.forward(acts, TOKENS.astype(np.int32))
    bias = model.parameters["h.1.mlp.c_proj.bias"]
    assert_close("stream", acts.blocks[1].residual_out, np.broadcast_to(bias, (8, 6)), 1e-15)


def test_no_bias_correction_is_that_of_infinitely_many_steps(backend: Backend) -> None:
    g, m, v, w = 0.3, 0.1, 0.04, 1.0
    arrays = [np.array([x]) for x in (w, g, m, v)]
    changed(backend, bias_correction=False).adamw(
        *arrays, step=1, decayed=0, learning_rate=0.01, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0
    )
    moved = 0.01 * (0.9 * m + 0.1 * g) / ((0.99 * v + 0.01 * g * g) ** 0.5 + 1e-8)
    assert arrays[0][0] == pytest.approx(w - moved, rel=1e-12)


def test_nothing_taken_out_is_the_backend_itself(backend: Backend) -> None:
    assert changed(backend) is backend
    assert changed(backend, scale=False).name == f"{backend.name}, no scale"


def test_a_changed_model_does_not_generate(backend: Backend) -> None:
    decoder = Decoder(model_without(("scale",), backend))
    decoder.read(np.array([1], np.int32))
    with pytest.raises(UserError, match="cannot generate"):
        decoder.write(np.zeros(1, np.int32), 1, GenerateConfig(run=""), 0)


@pytest.mark.parametrize("parts", [("scale",), ("residual",)])
def test_a_change_changes_something(parts: tuple[str, ...]) -> None:
    numpy = get_backend("numpy")
    usual, other = (model_without(each, numpy).loss(TOKENS, TARGETS) for each in ((), parts))
    assert abs(usual - other) > 1e-3
