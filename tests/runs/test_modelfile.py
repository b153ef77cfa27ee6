"""Saving a model, and reading files that may contain anything."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from bevia_fast.config import ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import CheckpointError
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import FORMAT_VERSION, load_model, load_trained, save_model
from bevia_fast.runs.tensorfile import write_tensors

ALPHABET = "\n abc\ud800"
CONFIG = ModelConfig(ctx=4, dim=6, layers=1, heads=2, vocab_size=len(ALPHABET))


def about(**changes: Any) -> dict[str, Any]:
    return {"format_version": FORMAT_VERSION, "config": asdict(CONFIG), "alphabet": ALPHABET, "step": 3, **changes}


def saved(path: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a model file with some tensors and metadata replaced."""
    everything = dict(Parameters.initial(CONFIG, 0)) | (tensors or {})
    everything = {name: array for name, array in everything.items() if array is not None}
    write_tensors(path, everything, about(**changes))
    return path


def signed(header: dict[str, Any] | str, data: bytes = b"") -> bytes:
    """Return a file with any header and the matching checksum."""
    if isinstance(header, dict):
        entries = header
        header = json.dumps({"__metadata__": {"checksum": "0" * 64}} | entries, separators=(",", ":"))
    text = header.encode()
    rest = len(text).to_bytes(8, "little") + text[:29] + text[93:] + data
    digest = hashlib.sha256(rest).hexdigest().encode()
    return rest[:37] + digest + rest[37:]


def with_prefix(names: Iterable[str]) -> set[str]:
    """The names that transformers gives the weights of a model with a head of its own."""
    return {name if name == "lm_head.weight" else f"transformer.{name}" for name in names}


def test_a_file_of_an_earlier_version_has_no_prefix(tmp_path: Path) -> None:
    """It lacks "names" in its metadata, and `saved` lacks it too."""
    config = replace(CONFIG, tie=False)
    weights = Parameters.initial(config, 0)
    write_tensors(tmp_path / "model.safetensors", weights, about(config=asdict(config)))
    assert load_model(tmp_path)[0].flat.tobytes() == weights.flat.tobytes()
    write_tensors(tmp_path / "model.safetensors", weights, about(config=asdict(config), names="others"))
    refused(tmp_path, "its names of weights are unknown")
    write_tensors(tmp_path / "model.safetensors", weights, about(config=asdict(config), names="lm"))
    refused(tmp_path, "is damaged: wte.weight is not part of this model.")


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
    # other readers of safetensors can open it
    assert load_file(path).keys() == (set(weights) if tie else with_prefix(weights))
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
    refused(tmp_path, "is not a complete safetensors file.")
    path.write_bytes(b"hello world, this is no model at all")
    refused(path, "is not a complete safetensors file.")
    path.write_bytes(save({"weight": np.ones(30)}))
    refused(path, "was not written by bevia-fast")
    path.unlink()
    path.mkdir()
    refused(path, "There is no model in")
    path.rmdir()
    os.mkfifo(path)  # opening it would block
    refused(path, "is not a file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 99}, ["format version 99"]),
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
        ({"config": asdict(CONFIG) | {"ctx": 1 << 24, "dim": 1 << 16}}, ["wte.weight", "expected"]),
        ({"config": asdict(CONFIG) | {"dtype": "float64"}}, ["is F32", "expected F64"]),
        ({"config": asdict(CONFIG) | {"vocab_size": 5}}, ["its alphabet has 6 characters, but its vocab_size is 5"]),
        ({"alphabet": "cba"}, ["damaged header"]),
        ({"alphabet": ["a"]}, ["damaged header"]),
        ({"alphabet": ""}, ["damaged header"]),
    ],
)
def test_damaged_headers(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    refused(saved(tmp_path / "m.safetensors", **changes), *words)


@pytest.mark.parametrize(("step", "valid"), [(-1, False), (0, True), ((1 << 50) - 1, True), (1 << 50, False)])
def test_the_step_is_from_0_to_below_2_to_the_50(tmp_path: Path, step: int, valid: bool) -> None:
    path = saved(tmp_path / "model.safetensors", step=step)
    if valid:
        assert load_trained(path)[2] == step
    else:
        with pytest.raises(CheckpointError, match="its step is invalid"):
            load_trained(path)


def test_headers_that_are_not_json(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    start = '{"__metadata__":{"checksum":"' + "0" * 64 + '"'
    for text in ("", "{", "[" * 100_000, "[]", "3", "null"):
        path.write_bytes(signed({"__metadata__": {"checksum": "0" * 64, "bevia-fast": text}}))
        refused(path, "damaged header")
        path.write_bytes(signed(start + ("," + text if text else "")))
        refused(path, "damaged header")


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    refused(saved(path, {"ln_f.bias": None}), "ln_f.bias is missing")
    refused(saved(path, {"evil": np.ones(3)}), "evil is not part of this model.")
    refused(saved(path, {"ln_f.bias": np.ones(7, np.float32)}), "ln_f.bias is F32 (7,)")
    refused(saved(path, {"ln_f.bias": np.ones(6)}), "ln_f.bias is F64 (6,)")
    bad = np.ones(6, np.float32)
    bad[4] = np.nan
    refused(saved(path, {"ln_f.bias": bad}), "ln_f.bias[4] is nan")
    bad[4] = np.inf
    refused(saved(path, {"ln_f.bias": bad}), "ln_f.bias[4] is inf")


@pytest.mark.parametrize(("length", "valid"), [(16 << 20, True), ((16 << 20) + 1, False)])
def test_a_header_has_at_most_16_mib(tmp_path: Path, length: int, valid: bool) -> None:
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(signed(whole[8:size].decode().ljust(length), whole[size:]))
    if valid:
        load_model(path)
    else:
        refused(path, "header")


@pytest.mark.parametrize(("end", "valid"), [("}", True), ("}  ", True), ("", False), (" ", False), ("} x", False),
                                            ("}}", False), ("]", False), ("x}", False)])  # fmt: skip
def test_the_end_of_the_header(tmp_path: Path, end: str, valid: bool) -> None:
    path = saved(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    header = whole[8:size].decode().rstrip(" ")
    assert header.endswith("}")
    path.write_bytes(signed(header[:-1] + end, whole[size:]))
    if valid:
        load_model(path)
    else:
        refused(path, "damaged")


def test_any_cut_or_changed_byte_is_refused(tmp_path: Path) -> None:
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
        refused(path)

    change()


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}, 24),  # overlaps the first
        ({"dtype": "F32", "shape": [6], "data_offsets": [1 << 60, (1 << 60) + 24]}, 24),
        ({"dtype": "F32", "shape": [6], "data_offsets": [-24, 0]}, 24),
        ({"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 24]}, 24),
        ({"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}, 24),
        ({"dtype": "F32"}, 24),
        ({"dtype": ["F32"], "shape": "6", "data_offsets": None}, 24),
        (None, 24),
        ([[]], 24),
    ],
)
def test_hostile_headers_take_no_memory(tmp_path: Path, entry: Any, length: int) -> None:
    whole = saved(tmp_path / "whole.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    path = tmp_path / "m.safetensors"
    path.write_bytes(signed(json.dumps(header, separators=(",", ":")), data))
    load_model(path)  # `signed` itself is right
    path.write_bytes(signed(json.dumps(header | {"ln_f.bias": entry}, separators=(",", ":")), data))
    tracemalloc.start()
    refused(path, "ln_f.bias")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    for more in (b"x", b"x" * 8):
        path.write_bytes(signed(json.dumps(header, separators=(",", ":")), data + more))
        refused(path, "bytes instead of")
    path.write_bytes(signed(json.dumps(header, separators=(",", ":")), data[:-8]))
    refused(path, "bytes instead of")


def test_a_header_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for length in (1 << 63, (1 << 64) - 1, 1 << 33, 17 << 20):
        with open(path, "wb") as file:
            file.write(length.to_bytes(8, "little") + b'{"__metadata__":{"checksum":"' + b"0" * 64)
            file.truncate(1 << 34)  # sparse, so it takes no space
        tracemalloc.start()
        refused(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()


def test_names_of_tensors_are_not_paths(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for name in ("../../evil", "/etc/passwd", "a\0b", "C:\\evil", "x" * 100_000):
        assert len(refused(saved(path, {name: np.ones(3)}), "is not part of this model.")) < 500
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
