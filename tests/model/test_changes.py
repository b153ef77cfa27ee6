"""A model with a part taken out is exact: its gradients are those of its loss, on both backends, and it generates."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_is_gradient, normal, random_parameters
from small_runs import Acting, metadata, result, signed, tiny_config

from bevia_fast import Run, generate, resume, train
from bevia_fast.agreement.crosscheck import LiveCrosscheck
from bevia_fast.commands.main import main
from bevia_fast.config import GenerateConfig, ModelConfig, TrainConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import ConfigError, StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.changes import Changed, changed
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.gpt import GPT
from bevia_fast.model.optimizer import Optimizer, Rates
from bevia_fast.model.parameters import Parameters
from bevia_fast.model.writing import stream
from bevia_fast.playbook.twins import namespace
from bevia_fast.runs.modelfile import load_model

SMALL = ModelConfig(ctx=4, dim=6, layers=2, heads=2, vocab_size=5, dtype="float64")
TOKENS, TARGETS = np.array([[0, 3, 1, 4], [2, 2, 0, 1]]), np.array([[3, 1, 4, 2], [2, 0, 1, 1]])
WITHOUT: list[dict[str, Any]] = [{"scale": False}, {"residual": False}, {"scale": False, "residual": False}]
without = pytest.mark.parametrize("parts", WITHOUT, ids=lambda parts: "-".join(parts))


def model_without(parts: dict[str, Any], backend: Backend, config: ModelConfig = SMALL) -> GPT:
    return GPT(replace(config, **parts), backend, random_parameters(config))


@pytest.mark.parametrize("norm", ["pre", "post"])
@without
def test_gradients_are_those_of_the_loss(parts: dict[str, Any], norm: Any, backend: Backend) -> None:
    config = replace(SMALL, norm=norm)
    model, gradients = model_without(parts, backend, config), Parameters(config)
    for _ in range(4):  # as written, recorded, and replayed twice
        gradients.flat[...] = 0
        model.loss_and_gradients(TOKENS, TARGETS, gradients)
    for name in ("h.0.attn.c_attn.weight", "h.1.attn.c_attn.bias", "h.0.mlp.c_fc.bias", "wpe.weight", "ln_f.weight"):
        assert_is_gradient(name, gradients[name], lambda: model.loss(TOKENS, TARGETS), model.parameters[name])


@without
def test_both_backends_agree(parts: dict[str, Any]) -> None:
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
    changed(backend, replace(SMALL, scale=False)).attention_weights(weights, qkv)
    twins = namespace()
    for h in range(heads):
        queries, keys, _ = twins["split_heads"](qkv[0].tolist(), heads)
        scores = [[score * HS**0.5 for score in row] for row in twins["causal_scores"](queries[h], keys[h])]
        assert_close("weights", weights[0, h], np.array(twins["softmax"](scores)[0]), 1e-12)


def test_nothing_reaches_the_next_layer_around_a_branch(backend: Backend) -> None:
    """With the last projection of the MLP 0, the stream after the layer is its bias alone."""
    model = model_without({"residual": False}, backend)
    model.parameters["h.1.mlp.c_proj.weight"][...] = 0
    acts = model.buffers(2, 4)
    model.forward(acts, TOKENS.astype(np.int32))
    bias = model.parameters["h.1.mlp.c_proj.bias"]
    assert_close("stream", acts.blocks[1].residual_out, np.broadcast_to(bias, (8, 6)), 1e-15)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_no_bias_correction_is_that_of_infinitely_many_steps(backend: Backend, optimizer: Any) -> None:
    weights, gradients, state = Parameters(SMALL), Parameters(SMALL), Optimizer.new(optimizer, SMALL)
    g, m, v = 0.3, 0.1, 0.04
    gradients.flat[...] = g
    state.first.flat[...], state.second.flat[...] = m, v
    config = TrainConfig(bias_correction=False, weight_decay=0.0)
    state.update(backend, weights, gradients, Rates.of(config), step=1, learning_rate=0.01, muon_rate=0.0,
                 gradient_scale=1.0)  # fmt: skip
    moved = 0.01 * (0.9 * m + 0.1 * g) / ((0.99 * v + 0.01 * g * g) ** 0.5 + 1e-8)
    for name in ("wte.weight", "ln_f.bias"):
        assert_close(name, weights[name], np.full_like(weights[name], -moved), 1e-12)


def test_nothing_taken_out_is_the_backend_itself(backend: Backend) -> None:
    """So that the usual model loses no time."""
    assert GPT(SMALL, backend, Parameters(SMALL)).backend is backend
    other = changed(backend, replace(SMALL, scale=False))
    assert other.name == f"{backend.name}, no scale"
    assert changed(other, SMALL) is backend
    again = changed(other, replace(SMALL, residual=False))
    assert isinstance(again, Changed)
    assert again.unchanged is backend
    assert again.name == f"{backend.name}, no residuals"


@without
def test_a_change_changes_something(parts: dict[str, Any]) -> None:
    numpy = get_backend("numpy")
    usual, other = (model_without(each, numpy).loss(TOKENS, TARGETS) for each in ({}, parts))
    assert abs(usual - other) > 1e-3


# ---------------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("sizes", [{}, {"norm": "post", "activation": "relu"}, {"bias": False}], ids=str)
@without
def test_the_cache_writes_what_the_whole_window_does(parts: dict[str, Any], sizes: Any, backend: Backend) -> None:
    """Four windows of text; a usual model writes another one."""
    config = replace(SMALL, ctx=8, **sizes)
    tokenizer, how = Tokenizer("abcde"), GenerateConfig(run="", prompt="a", length=32, temperature=1.0)
    model = model_without(parts, backend, config)
    text = "".join(stream(model, tokenizer, how))
    assert text == "".join(stream(model, tokenizer, how, use_cache=False))
    assert text != "".join(stream(model_without({}, backend, config), tokenizer, how))


# ---------------------------------------------------------------------------------------------------------------- runs


def lab_config(folder: Path, name: str = "run", **changes: Any) -> TrainConfig:
    config = tiny_config(folder, name)
    model = replace(config.model, scale=False, residual=False)
    return replace(config, model=model, bias_correction=False, **changes)


@pytest.mark.usefixtures("quick_runs")
def test_a_run_keeps_its_changes(tmp_path: Path) -> None:
    """In its files, for those who generate, cross-check and resume; with the bits of a run without an interruption."""
    whole = train(lab_config(tmp_path, "whole", backend="numba", crosscheck_every=1))
    usual = train(tiny_config(tmp_path, "usual"))
    run = train(lab_config(tmp_path, backend="numba"), Acting(5, interrupt))
    assert run.step < 10
    resumed = train(resume(run.folder, crosscheck_every=1))
    assert result(resumed.folder)[:2] == result(whole.folder)[:2] != result(usual.folder)[:2]
    assert not load_model(whole.folder)[0].config.scale
    assert not whole.config.model.residual
    assert not whole.config.bias_correction
    loaded = Run.load(whole.folder, "numpy")
    assert loaded.model.backend.name == "numpy, no scale, no residuals"
    assert generate(loaded, "the", length=40) == generate(whole, "the", length=40)
    checked = LiveCrosscheck(loaded.model.parameters, get_backend("numba"))
    assert checked.model.backend.name == "numba, no scale, no residuals"


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_crosscheck_notices_a_change_on_one_side() -> None:
    model = model_without({"scale": False}, get_backend("numba"))
    gradients = Parameters(model.config)
    loss = model.loss_and_gradients(TOKENS, TARGETS, gradients)
    batches = [(TOKENS, TARGETS, DropoutStream(1, 1))]
    assert model.parameters.config.scale  # what the other side goes by
    with pytest.raises(StoppedRun, match=r"Stopped at step 1: .* with the numpy backend"):
        LiveCrosscheck(model.parameters, get_backend("numpy")).compare(1, loss, gradients, batches)


@pytest.mark.parametrize("name", ["scale", "residual", "bias_correction"])
def test_a_resumed_run_cannot_change_them(tmp_path: Path, name: str) -> None:
    run = train(tiny_config(tmp_path, steps=2))
    config = resume(run.folder)
    other = replace(config, model=replace(config.model, **{name: False})) if name != "bias_correction" else None
    with pytest.raises(ConfigError, match=f"{name} is off"):
        train(other or replace(config, bias_correction=False))


@pytest.mark.usefixtures("quick_runs")
def test_another_run_takes_them_over_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(lab_config(tmp_path))
    assert main(["train", "--config", "run", "--steps", "2", "--out", "again"]) == 0
    (tmp_path / "lab.toml").write_text("scale = false\nbias-correction = false\n")
    assert main(["train", "--config", "lab.toml", "--data", "text.txt", "--preset", "tiny"]) == 2
    small = ["--ctx", "8", "--dim", "8", "--layers", "1", "--heads", "1", "--steps", "1", "--backend", "numpy"]
    assert main(["train", "--config", "lab.toml", "--data", "text.txt", *small, "--out", "toml"]) == 0
    found = {name: json.loads((tmp_path / name / "options.json").read_text()) for name in ("again", "toml")}
    assert [found["again"]["model"][name] for name in ("scale", "residual")] == [False, False]
    assert [found["toml"]["model"][name] for name in ("scale", "residual")] == [False, True]
    assert not any(each["bias_correction"] for each in found.values())
    assert main(["train", "--scale", "--data", "text.txt"]) == 2  # the command line does not have them


def test_a_model_of_an_earlier_version_has_all_parts(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, steps=2))
    path = run.folder / "model.safetensors"
    whole = path.read_bytes()
    about = metadata(whole)
    del about["config"]["scale"], about["config"]["residual"]
    path.write_bytes(signed(about, whole))
    config = load_model(path)[0].config
    assert config.scale
    assert config.residual
