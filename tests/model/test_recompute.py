"""What layers do not keep is computed again, to the same bits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, random_parameters

from bevia_fast.config import ModelConfig
from bevia_fast.kernels.contract import Backend
from bevia_fast.model import activations
from bevia_fast.model.activations import Activations
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters

VARIANTS = list(itertools.product(("pre", "post"), ("relu", "gelu", "gelu_erf"), (0.0, 0.2)))
B, T = 3, 37


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of rows, a short last one, and logits of a few rows at a time."""
    monkeypatch.setattr(activations, "ROWS", 48)
    monkeypatch.setattr(activations, "LONG_ROWS", 48)
    monkeypatch.setattr(activations, "LOGITS_BYTES", 600)
    monkeypatch.setattr(activations, "LEAST_LOGITS", 13)


def config(**options: Any) -> ModelConfig:
    usual: dict[str, Any] = {"ctx": T, "dim": 12, "layers": 3, "heads": 2, "vocab_size": 11}
    return ModelConfig(**(usual | options))


def computed(
    cfg: ModelConfig, backend: Backend, *, recompute: bool, weights: Parameters | None = None
) -> tuple[float, Parameters, GPT]:
    """Loss and gradients of a batch, the second time that it is computed."""
    random = np.random.default_rng(3)
    tokens, targets = random.integers(0, cfg.vocab_size, (2, B, T)).astype(np.int32)
    model, gradients = GPT(cfg, backend, weights or random_parameters(cfg), recompute=recompute), Parameters(cfg)
    stream = DropoutStream(seed=3, step=4)
    model.loss_and_gradients(tokens, targets, gradients, dropout=stream)
    for block in (acts := model.buffers(B, T)).blocks:  # nothing of the first time may be of use
        block.qkv.fill(np.nan)
        block.attended.fill(np.nan)
        block.residual_out.fill(np.nan)
    for array in (acts.normed, acts.mid, acts.activated, acts.preactivation, acts.dwide, acts.dqkv, acts.dattended):
        array.fill(np.nan)
    gradients.flat.fill(0)
    return model.loss_and_gradients(tokens, targets, gradients, dropout=stream), gradients, model


@pytest.mark.parametrize(("norm", "activation", "dropout"), VARIANTS)
@pytest.mark.usefixtures("small_chunks")
def test_same_bits_however_little_is_kept(
    norm: str, activation: str, dropout: float, dtype: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(norm=norm, activation=activation, dropout=dropout, dtype=dtype)
    loss, gradients, model = computed(cfg, backend, recompute=False)
    assert (model.buffers(B, T).keeps_rows, len(model.buffers(B, T).chunks)) == (True, 3)
    assert 0 < np.abs(gradients.flat).max() < np.inf
    monkeypatch.setattr(activations, "LONG", 1)  # as if the context were long
    for recompute in (False, True):
        again, others, model = computed(cfg, backend, recompute=recompute)
        assert not model.buffers(B, T).keeps_rows
        assert again == loss
        for name, view in gradients.items():
            np.testing.assert_array_equal(others[name], view, err_msg=f"{name}, recompute {recompute}")


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_chunks_change_rounding_only(dropout: float, backend: Backend, request: pytest.FixtureRequest) -> None:
    cfg = config(dropout=dropout, dtype="float64")
    weights = random_parameters(cfg)
    loss, gradients, model = computed(cfg, backend, recompute=False, weights=weights)
    assert len(model.buffers(B, T).chunks) == 1
    request.getfixturevalue("small_chunks")
    other_loss, others, model = computed(cfg, backend, recompute=False, weights=weights)
    chunked = model.buffers(B, T)
    assert (len(chunked.chunks), len(chunked.head_chunks) > 3) == (3, True)
    assert_close("loss", other_loss, loss, 1e-14, abs(loss))
    for name, view in gradients.items():
        assert_close(name, others[name], view, 1e-13, float(np.abs(view).max()))


def kept_units(cfg: ModelConfig, rows: int, *, recompute: bool) -> float:
    """Numbers that one layer more takes, in units of N x C."""

    def numbers(layers: int) -> int:
        shape = {"ctx": rows, "dim": cfg.dim, "heads": 1, "layers": layers, "norm": cfg.norm, "vocab_size": 7}
        acts = Activations(ModelConfig(**shape), 1, rows, recompute=recompute, empty=shape_only)
        arrays = {id(a): a.size for a in vars(acts).values() if isinstance(a, np.ndarray)}
        for block in acts.blocks:
            arrays |= {id(a): a.size for a in vars(block).values() if isinstance(a, np.ndarray)}
        return sum(arrays.values())

    return (numbers(3) - numbers(2)) / (rows * cfg.dim)


def shape_only(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), shape)


def test_what_a_layer_keeps_is_what_the_documentation_says() -> None:
    short, long = 1024, 65536
    for norm, extra in (("pre", 0), ("post", 1)):
        cfg = config(dim=256, norm=norm)
        assert kept_units(cfg, short, recompute=False) == pytest.approx(10 + extra, abs=0.01)
        assert kept_units(cfg, long, recompute=False) == pytest.approx(5, abs=0.01)
        assert kept_units(cfg, long, recompute=True) == pytest.approx(1, abs=0.01)


def test_it_is_the_context_that_decides_and_not_the_batch() -> None:
    """So a shorter batch never takes more."""
    for ctx, keeps in ((8 * 12 - 1, True), (8 * 12, False)):
        assert [Activations(config(ctx=ctx), 1, T).keeps_rows for T in (1, ctx)] == [keeps, keeps]
