"""Training with rotary positions: runs on disk, resuming, the cross-check, and runs of earlier versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import TINY, tiny_config

from bevia_fast import Run, generate, resume, train
from bevia_fast.errors import UserError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.instruments import Listener
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import load_model, save_model
from bevia_fast.runs.tensorfile import write_tensors
from bevia_fast.training import compiling

MODEL = replace(TINY, positions="rotary")


def rotary(tmp_path: Path, name: str = "run", **options: Any) -> Any:
    return tiny_config(tmp_path, name, **{"model": MODEL, **options})


def test_a_run_is_resumed_and_read(tmp_path: Path) -> None:
    whole = train(rotary(tmp_path, "whole"))
    train(rotary(tmp_path, "part", steps=6, keep=5))
    assert (tmp_path / "part").is_dir()
    resumed = train(replace(resume(str(tmp_path / "part")), steps=10))
    assert "wpe.weight" not in resumed.model.parameters
    assert resumed.model.config.positions == "rotary"
    text = generate(whole, prompt="the", length=3 * MODEL.ctx)
    assert generate(Run.load(whole.folder), prompt="the", length=3 * MODEL.ctx) == text
    assert len(text) == len("the") + 3 * MODEL.ctx  # far past the context


def test_a_resumed_run_has_the_bits_of_a_whole_one(tmp_path: Path) -> None:
    whole = train(rotary(tmp_path, "whole"))
    stopped = train(rotary(tmp_path, "stopped"))
    newest = max((stopped.folder / "checkpoints").iterdir())
    newest.unlink()  # as if the last checkpoint had never been written
    again = train(resume(str(stopped.folder)))
    assert again.model.parameters.flat.tobytes() == whole.model.parameters.flat.tobytes()


def test_positions_cannot_be_changed_in_a_run(tmp_path: Path) -> None:
    run = train(rotary(tmp_path))
    config = resume(str(run.folder))
    with pytest.raises(UserError, match="positions"):
        train(replace(config, model=replace(config.model, positions="learned")))


def test_the_other_backend_agrees_while_training(tmp_path: Path) -> None:
    run = train(rotary(tmp_path, crosscheck_every=2))
    assert run.history[2]["crosscheck"] < 1e-4
    assert json.loads((run.folder / "options.json").read_text())["model"]["positions"] == "rotary"


def test_a_model_of_an_earlier_version_has_learned_positions(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path))
    parameters, tokenizer = load_model(run.folder)
    about = {"format_version": 2, "alphabet": tokenizer.alphabet, "step": 10}
    config = {name: value for name, value in vars(parameters.config).items() if name != "positions"}
    write_tensors(tmp_path / "old.safetensors", parameters, {**about, "config": config})
    old, _ = load_model(tmp_path / "old.safetensors")
    assert old.config == parameters.config
    assert old.flat.tobytes() == parameters.flat.tobytes()


def test_a_model_file_of_rotary_positions(tmp_path: Path) -> None:
    run = train(rotary(tmp_path))
    parameters = Parameters.initial(run.model.config, 3)
    save_model(tmp_path / "model.safetensors", parameters, run.tokenizer, 0)
    found, _ = load_model(tmp_path / "model.safetensors")
    assert found.config.positions == "rotary"
    assert np.array_equal(found.flat, parameters.flat)


def test_the_rotation_is_compiled_ahead() -> None:
    noted = Listener(get_backend("numpy"))
    compiling._use_every_kernel(replace(MODEL, vocab_size=5), noted, "adamw")  # type: ignore[arg-type]
    called = {operation for operation, _, _ in noted.called}
    assert {"rotary_forward", "rotary_backward", "embedding_forward", "embedding_backward"} <= called
