"""The stages that a page holds are the engine's, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import SIZES, TEXT, small_run
from helpers import random_parameters
from stages import softmax, stages

from bevia_fast.config import ModelConfig
from bevia_fast.explorer.film import Basis
from bevia_fast.explorer.tracing import best, lens, surprise, trace
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.gpt import GPT

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], np.int32)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
def test_the_bits_are_those_of_the_model(backend: Backend, dtype: str, sizes: dict[str, Any]) -> None:
    config = ModelConfig(ctx=16, dim=8, layers=2, vocab_size=11, dtype=dtype, **sizes)  # type: ignore[arg-type]
    model = GPT(config, backend, random_parameters(config))
    found = trace(model, TOKENS)
    assert np.array_equal(found.logits, model.logits(TOKENS[None])[0])
    assert np.array_equal(np.stack([layer.weights for layer in found.layers]), model.attention_maps(TOKENS))
    streams = found.streams()
    acts = model.buffers(1, len(TOKENS))
    model.forward(acts, TOKENS[None])
    assert np.array_equal(streams[0], acts.embedded)
    assert [np.array_equal(stream, block.residual_out)
            for stream, block in zip(streams[2::2], acts.blocks, strict=True)] == [True, True]  # fmt: skip


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_stages_are_those_of_numpy(tmp_path: Path, norm: str) -> None:
    run = small_run(tmp_path, norm=norm)
    tokens = run.tokenizer.encode(TEXT)
    found, wanted = trace(run.model, tokens), stages(run.model.parameters, tokens)
    for number, layer in enumerate(found.layers):
        pairs = {"scores": layer.scores, "weights": layer.weights, "stream1": layer.attention, "stream2": layer.mlp}
        for name, value in pairs.items():
            np.testing.assert_allclose(value, wanted[f"{number}.{name}"], rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.final, wanted["final"], rtol=0, atol=1e-12)


def test_the_last_row_of_the_lens_is_the_output(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    found = trace(run.model, run.tokenizer.encode(TEXT))
    rows = lens(run.model, found)
    assert rows.shape == (2 * 2 + 2, len(TEXT), len(run.tokenizer))
    assert np.array_equal(rows[-1], rows[-2])
    np.testing.assert_allclose(rows[-1], softmax(found.logits), rtol=0, atol=1e-15)
    np.testing.assert_allclose(rows.sum(axis=-1), 1, rtol=0, atol=1e-14)


def test_surprise_is_the_loss_of_each_character(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    tokens = run.tokenizer.encode(TEXT)
    found = surprise(trace(run.model, tokens))
    assert found.mean() == pytest.approx(run.model.loss(tokens[None, :-1], tokens[None, 1:]), rel=1e-14)
    assert surprise(trace(run.model, tokens[:1])).size == 0


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_best_guesses(count: int) -> None:
    shares = np.array([[0.2, 0.5, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    tokens, certainty = best(shares, count)
    assert tokens.tolist() == [[1, 0, 2, 3][:count], [0, 1, 2, 3][:count]]  # the first of equals first
    assert certainty.tolist() == [[0.5, 0.2, 0.2, 0.1][:count], [0.25] * min(count, 4)]


def test_the_map_shows_the_largest_differences() -> None:
    table = np.array([[3.0, 0, 1], [-3, 0, 1], [0, 0, 2], [0, 0, 0]]) + 5
    basis = Basis.of(table)
    np.testing.assert_allclose(basis.project(table), [[3, 0], [-3, 0], [0, 1], [0, -1]], atol=1e-12)
    np.testing.assert_allclose(basis.project(table + np.array([1, 0, 0]))[:, 0], [4, -2, 1, 1], atol=1e-12)
    assert Basis.of(np.ones((1, 3))).project(np.ones((1, 3))).tolist() == [[0, 0]]
