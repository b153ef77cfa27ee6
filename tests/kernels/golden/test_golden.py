"""The kernels and the whole model against PyTorch: its results in `golden.npz`, and PyTorch itself where installed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from golden_inputs import (
    ADAMW,
    BATCHES,
    CTX,
    DIM,
    EPS,
    HEADS,
    IN_WINDOWS,
    LAYERS,
    MAX_NORM,
    MODEL_HEADS,
    MODELS,
    MUON,
    VOCAB,
    WEIGHT_DECAY,
    WINDOW,
    Array,
    make_inputs,
    make_model_inputs,
)
from helpers import EPS as MACHINE_EPS
from helpers import assert_close

from bevia_fast.config import ModelConfig
from bevia_fast.kernels.contract import Backend, MatrixAt
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.model.rotary import tables

# Two implementations apart, each a few roundings from the truth, sums of some tens of terms.
TOLERANCE = {dtype: 64 * eps for dtype, eps in MACHINE_EPS.items()}
# Ten steps of training carry the roundings on, and AdamW makes signs of small gradients; found: 2e-7 and 7e-16.
MODEL_TOLERANCE = {"float32": 5e-6, "float64": 2e-14}


def load() -> dict[str, Array]:
    with np.load(Path(__file__).with_name("golden.npz"), allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden() -> dict[str, Array]:
    return load()


def results(backend: Backend, inputs: dict[str, Array], dtype: str) -> dict[str, Array]:
    """What `make_golden.results` computes, by the kernels."""
    x = {name: array if array.dtype == np.int32 else array.astype(dtype) for name, array in inputs.items()}
    found: dict[str, Array] = {}

    def new(name: str, *shape: int) -> Array:
        """A result, 0 at first because gradients of parameters are added to."""
        found[name] = np.zeros(shape, dtype)
        return found[name]

    N, C = x["layer_norm.inp"].shape
    inp, weight, bias, dout = (x[f"layer_norm.{name}"] for name in ("inp", "weight", "bias", "dout"))
    mean, rstd = np.empty((2, N), dtype)
    backend.layernorm_forward(new("layer_norm.out", N, C), mean, rstd, inp, weight, bias, eps=EPS)
    backend.layernorm_backward(
        new("layer_norm.dinp", N, C), new("layer_norm.dweight", C), new("layer_norm.dbias", C), dout, inp, weight, mean,
        rstd,
    )  # fmt: skip

    inp, weight, bias, dout = (x[f"linear_gelu.{name}"] for name in ("inp", "weight", "bias", "dout"))
    N, C, OC = *inp.shape, weight.shape[1]
    preactivation, dpreactivation = new("linear_gelu.preactivation", N, OC), new("linear_gelu.dpreactivation", N, OC)
    backend.linear_forward(
        new("linear_gelu.out", N, OC), inp, weight, bias, activation="gelu", preactivation=preactivation
    )
    backend.gelu_backward(dpreactivation, dout, preactivation)
    backend.linear_backward(
        new("linear_gelu.dinp", N, C), new("linear_gelu.dweight", C, OC), new("linear_gelu.dbias", OC), dpreactivation,
        inp, weight,
    )  # fmt: skip

    qkv, dout = x["attention.qkv"], x["attention.dout"]
    B, T, C = dout.shape
    out, lse = new("attention.out", B, T, C), np.empty((B, HEADS, T), dtype)
    backend.attention_forward(out, lse, qkv)
    backend.attention_backward(new("attention.dqkv", *qkv.shape), dout, qkv, out, lse)
    qkv, dout = (np.ascontiguousarray(array[:1, :IN_WINDOWS]) for array in (qkv, dout))
    out, lse = new("attention_window.out", *dout.shape), np.empty((1, HEADS, IN_WINDOWS), dtype)
    backend.attention_forward(out, lse, qkv, window=WINDOW)
    backend.attention_backward(new("attention_window.dqkv", *qkv.shape), dout, qkv, out, lse, window=WINDOW)

    qkv, dout = x["rotary.qkv"], x["rotary.dout"]
    B, T, C = dout.shape
    angles = tables(ModelConfig(ctx=T, dim=C, heads=HEADS, dtype=dtype), 0, T)
    out, lse, dqkv = new("rotary.out", B, T, C), np.empty((B, HEADS, T), dtype), new("rotary.dqkv", *qkv.shape)
    backend.rotary_forward(qkv, *angles)
    backend.attention_forward(out, lse, qkv)
    backend.attention_backward(dqkv, dout, qkv, out, lse)
    backend.rotary_backward(dqkv, *angles)

    logits, targets = x["cross_entropy.logits"], x["cross_entropy.targets"]
    losses, dlogits = new("cross_entropy.losses", len(logits)), new("cross_entropy.dlogits", *logits.shape)
    backend.cross_entropy(losses, dlogits, logits, targets, scale=1 / len(logits))

    tokens, dout = x["embedding.tokens"], x["embedding.dout"]
    token_table, position_table = x["embedding.token_table"], x["embedding.position_table"]
    backend.embedding_forward(new("embedding.out", *dout.shape), tokens, token_table, position_table)
    dtables = new("embedding.dtoken_table", *token_table.shape), new("embedding.dposition_table", *position_table.shape)
    backend.embedding_backward(*dtables, dout, tokens)

    weights = x["adamw.parameters"]
    moments, norms = np.zeros((2, weights.size), dtype), []
    for step, gradients in enumerate(x["adamw.gradients"], start=1):
        norms.append(clipped_adamw(backend, weights, gradients, moments, step, weights.size // 2))
    found |= {"adamw.updated": weights, "adamw.norms": np.array(norms)}
    for name in ("muon_wide", "muon_tall"):
        weights = x[f"{name}.parameters"]
        momentum, whole = np.zeros(weights.size, dtype), (MatrixAt(0, *weights.shape, weights.shape[1]),)
        for gradients in x[f"{name}.gradients"]:
            backend.muon(
                weights.reshape(-1), gradients.reshape(-1), momentum, matrices=whole, learning_rate=MUON["lr"],
                beta=MUON["momentum"], weight_decay=WEIGHT_DECAY,
            )  # fmt: skip
        found[f"{name}.updated"] = weights
    return found


def clipped_adamw(
    backend: Backend, weights: Array, gradients: Array, moments: Array, step: int, decayed: int
) -> float:
    """One step as PyTorch's clip_grad_norm_ and AdamW make it; returns the norm before clipping."""
    norm = math.sqrt(backend.squared_norm(gradients))
    beta1, beta2 = ADAMW["betas"]
    backend.adamw(
        weights, gradients, *moments, step=step, decayed=decayed, learning_rate=ADAMW["lr"], beta1=beta1, beta2=beta2,
        eps=ADAMW["eps"], weight_decay=WEIGHT_DECAY, gradient_scale=min(1.0, MAX_NORM / (norm + 1e-6)),
    )  # fmt: skip
    return norm


def model_results(backend: Backend, inputs: dict[str, Array], dtype: str, variant: str) -> tuple[Array, Array]:
    """What `make_golden.model_results` computes, by the model: losses and gradient norms."""
    norm, activation, tied = MODELS[variant]
    config = ModelConfig(
        ctx=CTX, dim=DIM, layers=LAYERS, heads=MODEL_HEADS, activation=activation, norm=norm, tie=tied, dtype=dtype,
        vocab_size=VOCAB,
    )  # fmt: skip
    weights, gradients = Parameters(config), Parameters(config)
    for name in weights:
        weights[name][...] = inputs[f"model.{name}"]
    model = GPT(config, backend, weights)
    moments, losses, norms = np.zeros((2, weights.flat.size), dtype), [], []
    for step in range(BATCHES):
        tokens, targets = (np.ascontiguousarray(part) for part in shifted(inputs["model.tokens"][step]))
        losses.append(model.loss_and_gradients(tokens, targets, gradients))
        norms.append(clipped_adamw(backend, weights.flat, gradients.flat, moments, step + 1, weights.decayed))
    return np.array(losses), np.array(norms)


def shifted(tokens: Array) -> tuple[Array, Array]:
    return tokens[:, :-1], tokens[:, 1:]


def assert_all_close(found: dict[str, Array], golden: dict[str, Array], dtype: str) -> None:
    for name, array in found.items():
        assert_close(name, array, golden[name], TOLERANCE[dtype])


def test_operations_give_what_pytorch_gave(backend: Backend, dtype: str, golden: dict[str, Array]) -> None:
    assert_all_close(results(backend, golden_inputs(golden), dtype), golden, dtype)


def golden_inputs(golden: dict[str, Array]) -> dict[str, Array]:
    return {name: golden[name] for name in make_inputs(1)}


@pytest.mark.parametrize("variant", MODELS)
def test_first_ten_losses_are_pytorch_s(backend: Backend, dtype: str, golden: dict[str, Array], variant: str) -> None:
    losses, norms = model_results(backend, golden, dtype, variant)
    assert_close("losses", losses, golden[f"model.losses.{variant}"], MODEL_TOLERANCE[dtype])
    assert_close("norms", norms, golden[f"model.norms.{variant}"], MODEL_TOLERANCE[dtype])


def test_golden_file_is_small_and_holds_its_own_inputs(golden: dict[str, Array]) -> None:
    assert Path(__file__).with_name("golden.npz").stat().st_size < 200_000
    for name, array in (make_inputs(1) | make_model_inputs(2)).items():
        np.testing.assert_array_equal(golden[name], array)


def test_pytorch_itself_gives_the_same(backend: Backend, dtype: str) -> None:
    """On inputs of another seed than the file's."""
    pytest.importorskip("torch")
    import make_golden

    inputs = make_inputs(1234)
    assert_all_close(results(backend, inputs, dtype), make_golden.results(inputs), dtype)


@pytest.mark.parametrize("variant", MODELS)
def test_pytorch_itself_trains_alike(backend: Backend, dtype: str, variant: str) -> None:
    pytest.importorskip("torch")
    import make_golden

    inputs = make_model_inputs(4321)
    losses, _ = model_results(backend, inputs, dtype, variant)
    assert_close("losses", losses, make_golden.model_results(inputs)[f"model.losses.{variant}"], MODEL_TOLERANCE[dtype])
