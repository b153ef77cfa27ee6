"""onnxruntime computes the same from the graph that this program writes, for every kind of model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import needed
from helpers import random_parameters

from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig
from bevia_fast.data.bytelevel import ByteTokenizer
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors import onnx
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.files import MODEL
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import save_model

ALPHABET = "\n abc\u00e9\u8a00"
CONFIG = ModelConfig(ctx=40, dim=12, layers=2, heads=3, vocab_size=len(ALPHABET))
CHANGES: list[dict[str, Any]] = [
    {}, {"tie": False}, {"bias": False}, {"activation": "relu"}, {"activation": "gelu_erf"}, {"norm": "post"},
    {"positions": "rotary"}, {"window": 5}, {"window": 1, "window_layers": "odd"},
    {"window": 5, "window_layers": "all", "positions": "rotary", "bias": False, "heads": 1}, {"scale": False},
    {"norm": "post", "residual": False, "positions": "rotary", "tie": False}, {"dtype": "float64", "dropout": 0.5},
]  # fmt: skip


def weights(**changes: Any) -> Parameters:
    found = random_parameters(replace(CONFIG, **changes))
    for view in found.values():
        view *= 0.3 if view.ndim == 2 else 1.0
    return found


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: " ".join(changes) or "usual")
def test_onnxruntime_computes_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    package, runtime = needed("onnx"), needed("onnxruntime")
    parameters, path = weights(**changes), tmp_path / "model.onnx"
    onnx.export_onnx(parameters, Tokenizer(ALPHABET), "model", path)
    package.checker.check_model(package.load(path), full_check=True)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    model = GPT(parameters.config, open_backend("numpy"), parameters)
    for shape in ((1, 1), (1, 40), (3, 17)):
        tokens = np.random.default_rng(1).integers(0, len(ALPHABET), shape)
        (found,) = session.run(None, {"tokens": tokens})
        wanted = model.logits(tokens)
        assert found.dtype == np.float32
        assert abs(found - wanted).max() <= 5e-6
    assert 0.5 < abs(wanted).max() < 10


def test_the_command_and_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = needed("onnx")
    save_model(tmp_path / MODEL, weights(), Tokenizer(ALPHABET), 5)
    line = ["export", str(tmp_path / MODEL), "--format", "onnx", "--to", str(tmp_path / "new" / "model.onnx")]
    assert main(line) == 0
    assert capsys.readouterr().out.endswith("model.onnx opens with onnxruntime.\n")
    found = package.load(tmp_path / "new" / "model.onnx")
    properties = {each.key: each.value for each in found.metadata_props}
    assert (json.loads(properties["alphabet"]), properties["ctx"]) == (ALPHABET, "40")
    assert [each.version for each in found.opset_import] == [23]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.onnx"]
    assert main(line) == 2
    assert "model.onnx exists; choose another file with --to." in capsys.readouterr().err
    onnx.export_onnx(weights(vocab_size=256), ByteTokenizer(), "bytes", tmp_path / "bytes.onnx")
    properties = {each.key: each.value for each in package.load(tmp_path / "bytes.onnx").metadata_props}
    assert len(json.loads(properties["tokenizer.json"])["model"]["vocab"]) == 256


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"^format='onnx' needs the package onnx \(.*\): pip install 'bevia-fast"):
        onnx.export_onnx(weights(), Tokenizer(ALPHABET), "model", tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_no_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("onnx")
    parameters = weights()
    monkeypatch.setattr(onnx, "LARGEST", 4 * parameters.count)
    onnx.export_onnx(parameters, Tokenizer(ALPHABET), "model", tmp_path / "model.onnx")
    monkeypatch.setattr(onnx, "LARGEST", 4 * parameters.count - 1)
    with pytest.raises(ConfigError, match="parameters; an ONNX file holds at most"):
        onnx.export_onnx(parameters, Tokenizer(ALPHABET), "model", tmp_path / "more.onnx")
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="Cannot write"):
        onnx.export_onnx(parameters, Tokenizer(ALPHABET), "model", tmp_path / "file" / "model.onnx")
