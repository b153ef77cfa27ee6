"""Models of other programs become runs: the traps of their files, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_parameters
from writing_foreign import bfloat16, nanogpt_checkpoint, sizes, write_llmc, write_safetensors, write_torch

from bevia_fast.backends import open_backend
from bevia_fast.commands.main import main
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors.exporting import export_hub
from bevia_fast.doors.foreign import read_file
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import load_model
from bevia_fast.runs.trained import Run

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


def brought_in(source: Path, *options: str) -> Run:
    out = source.parent / "imported"
    assert main(["import", str(source), "--out", str(out), *options]) == 0
    return Run.load(out, "numpy")


def refused(capsys: pytest.CaptureFixture[str], source: Path, *options: str) -> str:
    """Return the error of an import that leaves nothing behind."""
    before = sorted(source.parent.rglob("*"))
    capsys.readouterr()
    assert main(["import", str(source), "--out", str(source.parent / "imported"), *options]) == 2
    assert sorted(source.parent.rglob("*")) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def same(run: Run, weights: Parameters, tolerance: float = 0.0) -> None:
    """Assert that a run has these weights."""
    assert run.model.parameters.keys() == weights.keys()
    for name, view in weights.items():
        assert abs(run.model.parameters[name] - view).max() <= tolerance * abs(view).max(), name


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


@pytest.mark.parametrize(("stored", "error"), [("float16", 2**-11), ("bfloat16", 2**-7), ("float64", 0.0)])
def test_other_precisions(folder: Path, weights: Parameters, stored: str, error: float) -> None:
    tensors = {n: bfloat16(v) if stored == "bfloat16" else v.astype(stored) for n, v in weights.items()}
    write_safetensors(folder / "model.safetensors", tensors)
    run = brought_in(folder)
    same(run, weights, error)
    assert run.model.config.dtype == ("float64" if stored == "float64" else "float32")
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
        ({"type": "BPE", "vocab": {"ab": 0}}, "has tokens of type BPE; this program reads models"),
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


# --------------------------------------------------------------------------------------------------------------- llm.c


@pytest.mark.parametrize(("version", "error"), [(3, 0.0), (5, 2**-7)])
def test_llmc(tmp_path: Path, weights: Parameters, version: int, error: float) -> None:
    write_llmc(tmp_path / "model.bin", weights, version, rows=16)
    (tmp_path / "text.txt").write_text(ALPHABET, "utf-8")
    same(brought_in(tmp_path / "model.bin", "--vocabulary", str(tmp_path / "text.txt")), weights, error)


def test_other_files_of_llmc(tmp_path: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    path, text = tmp_path / "model.bin", tmp_path / "text.txt"
    text.write_text(ALPHABET, "utf-8")
    write_llmc(path, weights, 3, rows=16)
    whole = bytearray(path.read_bytes())
    for place, number, words in (
        (0, 20240327, "its first number is not 20240326."), (1, 4, "has version 4; this program reads 3 (float32)"),
        (2, 0, "must be from 1"), (3, 17, "17 tokens do not fit into 16 rows."), (4, 3, "a model of its sizes has"),
        (5, 5, "is not divisible"), (7, 15, "a model of its sizes has"), (3, -1, "vocab_size"),
    ):  # fmt: skip
        path.write_bytes(whole[: 4 * place] + np.int32(number).tobytes() + whole[4 * place + 4 :])
        assert words.replace("_", "-") in refused(capsys, path, "--vocabulary", str(text)).replace("_", "-")
    for content in (whole[:-1], whole + b"\0", whole[:100], b""):
        path.write_bytes(content)
        assert "model" in refused(capsys, path, "--vocabulary", str(text))


# ------------------------------------------------------------------------------------------------------------- nanoGPT

META = {"vocab_size": 6, "itos": dict(enumerate(ALPHABET)), "stoi": {c: i for i, c in enumerate(ALPHABET)}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(META))
    return tmp_path / "ckpt.pt"


def options(checkpoint: Path) -> tuple[str, ...]:
    return "--vocabulary", str(checkpoint.parent / "meta.pkl"), "--approximate-gelu"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_nanogpt(checkpoint: Path, bias: bool, prefix: str) -> None:
    """Compiled or not; its linear layers are transposed, here also in memory, and it need not have biases."""
    weights = random_parameters(sizes(ALPHABET, bias=bias, dropout=0.5))
    write_torch(checkpoint, nanogpt_checkpoint(weights, prefix))
    run = brought_in(checkpoint, *options(checkpoint))
    same(run, weights)
    assert run.model.config == weights.config
    assert run.step == 250


def test_nanogpts_gelu_is_the_exact_one(
    checkpoint: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]
) -> None:
    write_torch(checkpoint, nanogpt_checkpoint(weights))
    error = refused(capsys, checkpoint, *options(checkpoint)[:2])
    assert "computes GELU by the error function" in error
    assert "--approximate-gelu accepts that." in error


class Evil:
    """Pickles to a call of a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Evil(os.system, "touch evil"), f"{os.name}.system"),
        (Evil(eval, "open('evil', 'w')"), "__builtin__.eval"),
        (Evil(getattr, "a", "b"), "__builtin__.getattr"),
        (np.ones(3), "numpy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_code_is_refused(
    checkpoint: Path, weights: Parameters, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    evil: Any, named: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(checkpoint.parent)
    write_torch(checkpoint, nanogpt_checkpoint(weights) | {"more": evil})
    assert f"is refused: it asks to run {named}" in refused(capsys, checkpoint, *options(checkpoint))
    (checkpoint.parent / "meta.pkl").write_bytes(pickle.dumps(META | {"more": evil}))
    assert "meta.pkl is refused" in refused(capsys, checkpoint, *options(checkpoint))
    assert not (checkpoint.parent / "evil").exists()


def test_damaged_checkpoints(checkpoint: Path, weights: Parameters, capsys: pytest.CaptureFixture[str]) -> None:
    usual = nanogpt_checkpoint(weights)
    whole = usual["model"]["_orig_mod.transformer.wte.weight"]

    def changed(**changes: Any) -> None:
        tensor = type(whole)(weights["wte.weight"], "FloatStorage")
        for name, value in changes.items():
            setattr(tensor, name, value)
        write_torch(checkpoint, usual | {"model": usual["model"] | {"_orig_mod.transformer.wte.weight": tensor}})

    for changes, words in (
        ({"stride": (13, 1)}, "a tensor reaches beyond its storage"),
        ({"shape": (7, 12)}, "is larger than its storage"),
        ({"stride": (0, 0), "shape": (1 << 30, 1 << 30)}, "is larger than its storage"),
        ({"stride": (-1, 1)}, "a tensor's sizes are invalid"), ({"stride": (1,)}, "a tensor's sizes are invalid"),
    ):  # fmt: skip
        changed(**changes)
        assert words in refused(capsys, checkpoint, *options(checkpoint))
    for changes, words in (
        ({"model_args": {}}, "is not a checkpoint of nanoGPT: KeyError"), ({"model": {"wte": 5}}, "is not a tensor"),
        ({"iter_num": -1}, "iter_num"), ({"model": {}}, "has no tensor wte.weight"),
    ):  # fmt: skip
        write_torch(checkpoint, usual | changes)
        assert words in refused(capsys, checkpoint, *options(checkpoint))
    write_torch(checkpoint, usual)
    good = checkpoint.read_bytes()
    for content in (b"", good[:100], good[:-30], pickle.dumps(5)):
        checkpoint.write_bytes(content)
        assert "was not written by PyTorch 1.6 or later" in refused(capsys, checkpoint, *options(checkpoint))
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ckpt/data.pkl", b"\0" * 1000)
    assert "is compressed" in refused(capsys, checkpoint, *options(checkpoint))
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("ckpt/data.pkl", b"\x80")
    assert "is damaged" in refused(capsys, checkpoint, *options(checkpoint))


def test_a_vocabulary_of_nanogpt_without_characters(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_torch(checkpoint, {})
    for content in (5, {"itos": 5}, {}):
        (checkpoint.parent / "meta.pkl").write_bytes(pickle.dumps(content))
        assert "meta.pkl has no characters" in refused(capsys, checkpoint, *options(checkpoint))


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
