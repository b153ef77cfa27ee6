"""Training with products in bfloat16: runs on disk, resuming, generation, the cross-check, and its limits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import normal, random_parameters
from small_runs import TINY, tiny_config

from bevia_fast import Run, generate, resume, train
from bevia_fast.config import GenerateConfig, ModelConfig
from bevia_fast.errors import ConfigError, UserError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.bfloat16 import AtPrecision
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.instruments import Listener
from bevia_fast.model.changes import Changed, changed, unchanged
from bevia_fast.model.decoder import Decoder
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import load_model
from bevia_fast.runs.tensorfile import write_tensors
from bevia_fast.training import compiling

MODEL = replace(TINY, precision="bf16")


def rounding(tmp_path: Path, name: str = "run", **options: Any) -> Any:
    return tiny_config(tmp_path, name, **{"model": MODEL, **options})


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path: Path, backend: str) -> None:
    whole = train(rounding(tmp_path, "whole", backend=backend))
    stopped = train(rounding(tmp_path, "stopped", backend=backend))
    max((stopped.folder / "checkpoints").iterdir()).unlink()  # as if the last checkpoint had never been written
    again = train(resume(str(stopped.folder)))
    assert again.model.config.precision == "bf16"
    assert again.model.parameters.flat.tobytes() == whole.model.parameters.flat.tobytes()
    text = generate(whole, prompt="the", length=3 * MODEL.ctx)
    assert generate(Run.load(whole.folder), prompt="the", length=3 * MODEL.ctx) == text


def test_a_run_differs_from_one_in_float32(tmp_path: Path) -> None:
    rounded, exact = train(rounding(tmp_path, "bf16")), train(rounding(tmp_path, "float32", model=TINY))
    assert rounded.model.parameters.flat.tobytes() != exact.model.parameters.flat.tobytes()
    assert rounded.model.parameters.flat.dtype == np.float32
    assert abs(rounded.history[-1]["loss"] - exact.history[-1]["loss"]) < 0.02


def test_the_precision_cannot_be_changed_in_a_run(tmp_path: Path) -> None:
    run = train(rounding(tmp_path))
    config = resume(str(run.folder))
    with pytest.raises(UserError, match="precision"):
        train(replace(config, model=replace(config.model, precision="float32")))


def test_a_run_that_starts_from_another_may_have_another_precision(tmp_path: Path) -> None:
    first = train(rounding(tmp_path, "first", model=TINY))
    second = train(rounding(tmp_path, "second", init=str(first.folder)))
    assert second.model.config.precision == "bf16"


def test_the_other_backend_agrees_while_training(tmp_path: Path) -> None:
    run = train(rounding(tmp_path, crosscheck_every=2))
    assert run.history[2]["crosscheck"] < 1e-2
    assert json.loads((run.folder / "options.json").read_text())["model"]["precision"] == "bf16"


def test_a_model_of_an_earlier_version_is_exact(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path))
    parameters, tokenizer = load_model(run.folder)
    config = {name: value for name, value in vars(parameters.config).items() if name != "precision"}
    about = {"format_version": 2, "alphabet": tokenizer.alphabet, "step": 10, "config": config}
    write_tensors(tmp_path / "old.safetensors", parameters, about)
    assert load_model(tmp_path / "old.safetensors")[0].config == parameters.config


def test_it_needs_float32() -> None:
    with pytest.raises(ConfigError, match=r"precision.*needs.*float32"):
        ModelConfig(precision="bf16", dtype="float64")
    with pytest.raises(ConfigError, match="precision"):
        ModelConfig(precision="bfloat16")  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_generation_continues_what_training_computes(backend: Backend, positions: Any, norm: Any) -> None:
    """A cached token has the logits that the whole text gives it. Numbers may fall to the other side of a rounding."""
    config = ModelConfig(
        ctx=24, dim=32, layers=2, heads=2, vocab_size=11, positions=positions, norm=norm, precision="bf16", window=9,
    )  # fmt: skip
    weights = random_parameters(config)
    weights.flat *= 0.3
    model = GPT(config, backend, weights)
    tokens = np.random.default_rng(3).integers(0, 11, 20).astype(np.int32)
    decoder = Decoder(model)
    assert decoder.keys.dtype == np.uint16
    decoder.read(tokens[:7])
    for index in range(7, 20):
        decoder.write(np.zeros(1, np.int32), int(tokens[index]), GenerateConfig(run="", temperature=0.0), 0)
        expected = model.logits(tokens[None, : index + 1])[0, -1]
        np.testing.assert_allclose(decoder.logits, expected, atol=2e-2 * float(np.abs(expected).max()))


def test_gradients_are_close_to_those_of_float32(backend: Backend) -> None:
    """Products in bfloat16 change a gradient by less than a hundredth of its norm or so."""
    found = []
    for precision in ("float32", "bf16"):
        config = ModelConfig(ctx=32, dim=48, layers=2, heads=3, vocab_size=17, precision=precision)  # type: ignore[arg-type]
        weights, gradients = Parameters.initial(config, 1), Parameters(config)
        tokens = np.random.default_rng(0).integers(0, 17, (4, 33)).astype(np.int32)
        loss = GPT(config, backend, weights).loss_and_gradients(tokens[:, :-1], tokens[:, 1:], gradients)
        found.append((loss, gradients.flat))
    (exact_loss, exact), (loss, rounded) = found
    assert abs(loss - exact_loss) < 1e-3
    assert 1e-4 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 2e-2


def test_changes_and_precision_go_together() -> None:
    backend = get_backend("numpy")
    both = changed(backend, ModelConfig(precision="bf16", scale=False))
    assert isinstance(both, Changed)
    assert isinstance(both.unchanged, AtPrecision)
    assert unchanged(both) is backend
    assert unchanged(changed(backend, ModelConfig(precision="bf16"))) is backend
    assert changed(both, ModelConfig()) is backend
    out, lse = np.empty((1, 5, 4), "f4"), np.empty((1, 1, 5), "f4")
    both.attention_forward(out, lse, normal(1, 1, 5, 12, dtype="float32"))


def test_its_kernels_are_compiled_ahead() -> None:
    noted = Listener(get_backend("numpy"))
    compiling._use_every_kernel(replace(MODEL, vocab_size=5), noted, "adamw")  # type: ignore[arg-type]
    asked = {operation for operation, _, options in noted.called if options.get("precision") == "bf16"}
    assert {"linear_forward", "linear_backward", "attention_forward", "attention_backward", "decode_tokens"} <= asked
