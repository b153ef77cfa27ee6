"""Models of transformers become runs: the traps of their files, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bringing_in import brought_in, refused, same
from helpers import random_parameters
from writing_foreign import bfloat16, sizes, write_safetensors

from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors.exporting import export_hub
from bevia_fast.doors.foreign import read_file
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import load_model

ALPHABET = "\n abcé"
CONFIG = sizes(ALPHABET)


@pytest.fixture
def weights() -> Parameters:
    return random_parameters(CONFIG)


@pytest.fixture
def folder(weights: Parameters, tmp_path: Path) -> Path:
    """A folder of transformers, whose files the tests replace."""
    export_hub(weights, Tokenizer(ALPHABET), 3, tmp_path / "hf")
    return tmp_path / "hf"


def change(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -------------------------------------------------------------------------------------------------------- transformers


def test_an_export_comes_back(folder: Path, weights: Parameters) -> None:
    run = brought_in(folder)
    same(run, weights)
    assert run.tokenizer.alphabet == ALPHABET
    assert run.model.config == CONFIG
    assert run.config.model == CONFIG
    assert main(["generate", str(run.folder), "--length", "5", "--backend", "numpy"]) == 0


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_any_order_and_what_is_no_weight(folder: Path, weights: Parameters, prefix: str) -> None:
    """Masks of the causal order, as integers or as numbers, an empty one, and a head that repeats the embedding."""
    tensors: dict[str, Any] = {prefix + name: weights[name] for name in reversed(list(weights))}
    tensors[f"{prefix}h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.bool_)
    tensors[f"{prefix}h.1.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
    tensors[f"{prefix}h.1.attn.masked_bias"] = np.float32(-1e4)
    tensors["lm_head.weight"] = weights["wte.weight"]
    write_safetensors(folder / "model.safetensors", tensors)
    run = brought_in(folder)
    same(run, weights)
    assert run.model.config.tie


def test_a_head_of_its_own(tmp_path: Path) -> None:
    weights = random_parameters(sizes(ALPHABET, tie=False))
    export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "hf")
    same(brought_in(tmp_path / "hf"), weights)


def test_whether_the_head_is_tied_is_for_the_configuration_to_say(
    folder: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    """transformers leaves out a head that is stored nevertheless, and makes up one that is missing."""
    change(folder, "config.json", tie_word_embeddings=False)
    assert "has no tensor lm_head.weight." in refused(capsys, folder)
    change(folder, "config.json", tie_word_embeddings=True)
    write_safetensors(folder / "model.safetensors", {**weights, "lm_head.weight": weights["wte.weight"] + 1})
    same(brought_in(folder), weights)


@pytest.mark.parametrize(("stored", "error"), [("float16", 2**-11), ("bfloat16", 2**-7), ("float64", 0.0)])
def test_other_precisions(folder: Path, weights: Parameters, stored: str, error: float) -> None:
    tensors = {n: bfloat16(v) if stored == "bfloat16" else v.astype(stored) for n, v in weights.items()}
    write_safetensors(folder / "model.safetensors", tensors)
    run = brought_in(folder)
    same(run, weights, error)
    assert run.model.config.dtype == ("float64" if stored == "float64" else "float32")
    read = {tensor.dtype.name for tensor in read_file(folder / "model.safetensors").values()}
    assert read == {"float64" if stored == "float64" else "float32"}
    assert np.array_equal(run.model.parameters["wte.weight"] == weights["wte.weight"], np.full((6, 12), error == 0.0))


def test_several_files(folder: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, some in parts.items():
        write_safetensors(folder / file, {name: weights[name] for name in some})
    index = {"weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    change(folder, "model.safetensors.index.json", weight_map=index["weight_map"] | {"h.9.x": file})
    assert "names h.9.x, which is in none of its files." in refused(capsys, folder)
    for wrong in ("../model.safetensors", "a\0b"):
        change(folder, "model.safetensors.index.json", weight_map=index["weight_map"] | {"x": wrong})
        assert "which is not a file of this folder." in refused(capsys, folder)
    change(folder, "model.safetensors.index.json", weight_map=5)
    assert "does not say in which files" in refused(capsys, folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    same(brought_in(folder), weights)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt_neo"}, "of type 'gpt_neo'; this program reads 'gpt2'."),
        ({"model_type": None}, "of type None"),
        ({"layer_norm_epsilon": 1e-6}, "has layer_norm_epsilon 1e-06; this program computes 1e-05."),
        ({"scale_attn_weights": False}, "this program computes True."),
        ({"scale_attn_by_inverse_layer_idx": True}, "this program computes False."),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"activation_function": "silu"}, "has the activation 'silu'; this program has gelu_new, relu"),
        ({"activation_function": ["relu"]}, "has the activation ['relu']"),
        ({"activation_function": "gelu"}, "computes GELU by the error function"),
        ({"n_inner": 47}, "its MLP has 47 channels; those of this program have 48."),
        ({"n_embd": 13}, "is not divisible by"),
        ({"n_embd": "12"}, "--dim is '12'; it must be an integer."),
        ({"n_embd": None}, "is incomplete: TypeError"),
        ({"n_positions": 1 << 24, "n_embd": 3 << 12}, "has shape"),
        ({"n_layer": 3}, "has no tensor h.2.attn.c_attn.weight."),
        ({"n_layer": 1}, "has a tensor h.1.attn.c_attn.bias, which is not part of GPT-2."),
        ({"n_positions": 9}, "wpe.weight has shape (8, 12); expected (9, 12)."),
        ({"vocab_size": 7}, "has 7 tokens, but its vocabulary has 6 characters."),
    ],
)
def test_models_that_are_not_ours(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    change(folder, "config.json", **changes)
    assert words in refused(capsys, folder)


def test_options_that_change_nothing(folder: Path, weights: Parameters) -> None:
    change(folder, "config.json", n_inner=48, activation_function="gelu_pytorch_tanh", scale_attn_weights=True)
    same(brought_in(folder), weights)


def test_an_activation_is_kept(folder: Path) -> None:
    change(folder, "config.json", activation_function="relu")
    assert brought_in(folder).model.config.activation == "relu"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"dtype": "F8_E4M3", "shape": [6, 12], "data_offsets": [0, 72]}, "its type F8_E4M3 is unknown"),
        ({"dtype": "F32", "shape": [6, 13], "data_offsets": [0, 288]}, "288 bytes are not F32 of shape [6, 13]"),
        ({"dtype": "F32", "shape": [6, 12], "data_offsets": [0, 1 << 40]}, "it ends at byte"),
        ({"dtype": "F32", "shape": [6, 12], "data_offsets": [288, 0]}, "it ends at byte 0"),
        ({"dtype": "F32", "shape": [-6, -12], "data_offsets": [0, 288]}, "not a natural number"),
        ({"dtype": "F32", "shape": [6, 12]}, "data_offsets"),
        (5, "damaged header"),
    ],
)
def test_damaged_entries(
    folder: Path, weights: Parameters, capsys: pytest.CaptureFixture[str], entry: Any, words: str
) -> None:
    write_safetensors(folder / "model.safetensors", weights, **{"wte.weight": entry})
    assert words in refused(capsys, folder)


def test_damaged_files(folder: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content, words in (
        (b"", "is not a complete safetensors file."), (b"\xff" * 8, "is not a complete"),
        (whole[:-1], "it ends at byte"), (b"\2\0\0\0\0\0\0\0[]", "it holds no JSON object."),
        (b"\1\0\0\0\0\0\0\0[", "is damaged"),
    ):  # fmt: skip
        path.write_bytes(content)
        assert words in refused(capsys, folder)
    nan = {**weights, "ln_f.weight": np.full(12, np.nan, np.float32)}
    write_safetensors(path, nan)
    assert "ln_f.weight is not finite." in refused(capsys, folder)
    path.unlink()
    assert "has neither model.safetensors nor" in refused(capsys, folder)
    os.mkfifo(path)
    assert "is not a file." in refused(capsys, folder)
    (folder / "config.json").unlink()
    assert "Cannot read" in refused(capsys, folder)


# ----------------------------------------------------------------------------------------------------------- alphabets


def test_the_rows_move_with_their_characters(tmp_path: Path) -> None:
    """Another program numbers characters in any order; what the model computes for a text stays."""
    mixed = "cé\nb a"
    weights = random_parameters(sizes(mixed, tie=False))
    export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "hf")
    model = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())["model"]
    change(tmp_path / "hf", "tokenizer.json", model=model | {"vocab": {c: i for i, c in enumerate(mixed)}})
    run = brought_in(tmp_path / "hf")
    assert run.tokenizer.alphabet == ALPHABET
    text = "abc é\na"
    theirs = np.array([[mixed.index(character) for character in text]])
    wanted = GPT(weights.config, open_backend("numpy"), weights).logits(theirs)
    found = run.model.logits(run.tokenizer.encode(text)[None])
    columns = [mixed.index(character) for character in ALPHABET]
    assert np.array_equal(found, wanted[:, :, columns])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"type": "Unigram", "vocab": {"ab": 0}}, "has tokens of type Unigram; this program reads models"),
        ({"type": "BPE", "vocab": {"ab": 0}}, "cannot be used: This tokenizer.json is of type BPE; this program reads"),
        ({"type": "WordLevel", "vocab": {"a": 0, "bc": 1}}, "has the token 'bc'; this program"),
        ({"type": "WordLevel", "vocab": {"a": 0, "b": 2}}, "does not number its 2 characters from 0."),
        ({"type": "WordLevel", "vocab": {"a": 0, "b": 0}}, "does not number"),
        ({"type": "WordLevel", "vocab": {"a": 0, "b": True}}, "does not number"),
        ({"type": "WordLevel", "vocab": ["a"]}, "has no vocabulary of words."),
        (None, "has no vocabulary of words."),
    ],
)
def test_other_tokens(folder: Path, capsys: pytest.CaptureFixture[str], model: Any, words: str) -> None:
    change(folder, "tokenizer.json", model=model)
    assert words in refused(capsys, folder)


def test_a_vocabulary_is_needed(folder: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.json").unlink()
    assert "does not say which characters its tokens are; --vocabulary names" in refused(capsys, folder)
    assert "Cannot read" in refused(capsys, folder, "--vocabulary", str(folder / "none.txt"))
    (folder / "text.txt").write_bytes(b"\xff")
    assert "is not UTF-8: byte 0." in refused(capsys, folder, "--vocabulary", str(folder / "text.txt"))
    (folder / "text.txt").write_text("éabc cab\n", "utf-8")
    same(brought_in(folder, "--vocabulary", str(folder / "text.txt")), weights)


# ----------------------------------------------------------------------------------------------------------- the rest


def test_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    assert "There is no model" in refused(capsys, tmp_path / "none.pt")
    assert "is neither a folder of transformers, nor" in refused(capsys, tmp_path / "a.txt")
    assert main(["import", str(folder), "--out", str(tmp_path / "a.txt")]) == 2
    assert "choose another one with --out." in capsys.readouterr().err
    assert main(["import", str(folder)]) == 2
    assert "--out needs the name of the folder to write." in capsys.readouterr().err


def test_our_own_files_are_read_as_anyones(folder: Path, weights: Parameters) -> None:
    found = read_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    assert load_model(folder)[0].flat.tobytes() == weights.flat.tobytes()
