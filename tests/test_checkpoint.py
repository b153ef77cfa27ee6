"""Saving a model, and reading files that may be anything."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from bevia_fast import files
from bevia_fast.checkpoint import FORMAT, load_model, save_model
from bevia_fast.config import ModelConfig
from bevia_fast.errors import CheckpointError
from bevia_fast.parameters import Parameters
from bevia_fast.tokenizer import Tokenizer

ALPHABET = "\n abc\ud800"
CONFIG = ModelConfig(ctx=4, dim=6, layers=1, heads=2, vocab_size=len(ALPHABET))


def about(**changes: Any) -> dict[str, Any]:
    return {"format_version": 1, "config": asdict(CONFIG), "alphabet": ALPHABET, "step": 3, **changes}


def saved(path: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A model file, with some of it replaced."""
    everything = dict(Parameters.initial(CONFIG, 0)) | (tensors or {})
    everything = {name: array for name, array in everything.items() if array is not None}
    path.write_bytes(save(everything, {FORMAT: json.dumps(about(**changes))}))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tie", [True, False])
def test_round_trip(tmp_path: Path, dtype: Any, tie: bool) -> None:
    config = ModelConfig(ctx=4, dim=6, layers=2, heads=3, vocab_size=6, dtype=dtype, tie=tie, bias=False, dropout=0.5)
    weights = Parameters.initial(config, 0)
    path = tmp_path / "model.safetensors"
    save_model(path, weights, Tokenizer(ALPHABET), 7)
    for place in (path, tmp_path):
        again, tokenizer = load_model(place)
        assert again.config == config
        assert tokenizer.alphabet == ALPHABET
        assert again.flat.tobytes() == weights.flat.tobytes()
    assert load_file(path).keys() == set(weights)  # anyone can read it by name
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def refused(path: Path, *words: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "There is no run")
    refused(tmp_path, "There is no model in")
    refused(Path("a\0b"), "NUL")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    refused(tmp_path, "not a whole safetensors file")
    path.write_bytes(b"hello world, this is no model at all")
    refused(path, "not a whole safetensors file")
    path.write_bytes(save({"weight": np.ones(3)}))
    refused(path, "was not written by bevia-fast")
    path.unlink()
    path.mkdir()
    refused(path, "There is no model in")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2}, ["format version 2"]),
        ({"config": None}, ["damaged header"]),
        ({"config": {}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"dim": 7}}, ["damaged header", "divisible"]),
        ({"config": asdict(CONFIG) | {"dim": "6"}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"ctx": 1e308}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"ctx": -1}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"dropout": [0]}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"dtype": "float16"}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"more": 1}}, ["damaged header"]),
        ({"config": asdict(CONFIG) | {"layers": 4096}}, ["missing"]),
        ({"config": asdict(CONFIG) | {"ctx": 1 << 24, "dim": 1 << 16}}, ["wte.weight", "wanted"]),
        ({"config": asdict(CONFIG) | {"dtype": "float64"}}, ["is F32", "wanted F64"]),
        ({"config": asdict(CONFIG) | {"vocab_size": 5}}, ["alphabet has 6 characters"]),
        ({"alphabet": "cba"}, ["damaged header"]),
        ({"alphabet": ["a"]}, ["damaged header"]),
        ({"alphabet": ""}, ["damaged header"]),
    ],
)
def test_damaged_headers(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    refused(saved(tmp_path / "m.safetensors", **changes), *words)


def test_headers_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for text in ("", "{", "[" * 100_000, "[]", "3", "null"):
        path.write_bytes(save(dict(Parameters(CONFIG)), {FORMAT: text}))
        refused(path, "damaged header")


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    refused(saved(path, {"ln_f.bias": None}), "ln_f.bias is missing")
    refused(saved(path, {"evil": np.ones(3)}), "evil is not of this model")
    refused(saved(path, {"ln_f.bias": np.ones(7, np.float32)}), "ln_f.bias is F32 (7,)")
    refused(saved(path, {"ln_f.bias": np.ones(6, np.int32)}), "ln_f.bias is I32 (6,)")
    bad = np.ones(6, np.float32)
    bad[4] = np.nan
    refused(saved(path, {"ln_f.bias": bad}), "ln_f.bias[4] is nan")
    bad[4] = np.inf
    refused(saved(path, {"ln_f.bias": bad}), "ln_f.bias[4] is inf")


def test_any_cut_or_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "m.safetensors"
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refused(path)

    @settings(max_examples=150)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def change(place: int, difference: int) -> None:
        data = bytearray(whole)
        data[place] ^= difference
        path.write_bytes(data)
        with contextlib.suppress(CheckpointError):
            load_model(path)

    change()


# ---------------------------------------------------------------------------------------------------------------- disk


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    path = tmp_path / "model.safetensors"
    files.write_atomically(path, b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken == "write":
        opened = os.fdopen

        def on_a_full_disk(*args: Any, **options: Any) -> Any:
            file = opened(*args, **options)
            file.write = fail
            return file

        monkeypatch.setattr(os, "fdopen", on_a_full_disk)
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(CheckpointError, match=r"Cannot write .*model\.safetensors: No space left on device\."):
        files.write_atomically(path, b"new and longer")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_new_files_have_the_usual_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_metrics_hold_whole_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files.RunFolder(str(tmp_path / "run"))
    path = folder.create({})
    folder.log({"step": 1})

    class Full:
        """A disk with room for three more bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            written: int = self.file.write(data[:3])
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    whole = folder._metrics
    folder._metrics = Full(whole)
    with pytest.raises(CheckpointError, match="Cannot write"):
        folder.log({"step": 2})
    folder._metrics = whole
    folder.log({"step": 3})
    folder.close()
    assert [record["step"] for record in files.read_metrics(path)] == [1, 3]


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    first, second = (files.RunFolder(str(tmp_path / "run")) for _ in range(2))
    first.create({"who": 1})
    with pytest.raises(CheckpointError, match="already holds a run"):
        second.create({"who": 2})
    first.close()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"who": 1}


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is not a folder"):
        files.RunFolder(str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="NUL"):
        files.RunFolder("a\0b")
    for bad in (tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(CheckpointError, match="Cannot write"):
            files.RunFolder(str(bad)).create({})


def test_metrics_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Cannot read"):
        files.read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{nonsense")
    with pytest.raises(CheckpointError, match="not a file of metrics"):
        files.read_metrics(tmp_path)
