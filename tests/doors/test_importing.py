"""Models of transformers become runs: the traps of their files, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
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
from bevia_fast.doors.exporting import export_hub, with_biases
from bevia_fast.doors.families import by_head, by_part
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
        ({"model_type": "bloom"}, "of type 'bloom'; this program reads 'gpt2', 'gpt_neox', 'gpt_neo'."),
        ({"model_type": ["gpt2"]}, "of type ['gpt2']"),
        ({"model_type": None}, "of type None"),
        ({"layer_norm_epsilon": 1e-6}, "has layer_norm_epsilon 1e-06; this program computes 1e-05."),
        ({"scale_attn_weights": False}, "this program computes True."),
        ({"scale_attn_by_inverse_layer_idx": True}, "this program computes False."),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"activation_function": "silu"}, "has the activation 'silu'; this program has gelu_new, gelu, relu"),
        ({"activation_function": ["relu"]}, "has the activation ['relu']"),
        ({"n_inner": 47}, "its MLP has 47 channels; those of this program have 48."),
        ({"n_embd": 13}, "is not divisible by"),
        ({"n_embd": "12"}, "--dim is '12'; it must be an integer."),
        ({"n_embd": None}, "is incomplete: TypeError"),
        ({"n_positions": 1 << 24, "n_embd": 3 << 12}, "has shape"),
        ({"n_layer": 3}, "has no tensor h.2.attn.c_attn.weight."),
        ({"n_layer": 1}, "has a tensor h.1.attn.c_attn.bias, which is not part of such a model."),
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


@pytest.mark.parametrize(("theirs", "ours"), [("relu", "relu"), ("gelu", "gelu_erf"), ("gelu_python", "gelu_erf")])
def test_an_activation_is_kept(folder: Path, theirs: str, ours: str) -> None:
    change(folder, "config.json", activation_function=theirs)
    assert brought_in(folder).model.config.activation == ours


# ------------------------------------------------------------------------------------------------- GPT-NeoX and GPT-Neo

FAMILIES: list[dict[str, Any]] = [
    {"positions": "rotary", "dim": 12, "heads": 3}, {"positions": "rotary", "heads": 1, "tie": False},
    {"positions": "rotary", "bias": False, "dtype": "float64"}, {"window": 3, "bias": False},
    {"window": 7, "window_layers": "odd", "bias": False, "layers": 3},
    {"window": 1, "window_layers": "all", "bias": False},
    {"window": 3, "bias": False, "tie": False, "dtype": "float64"},
]  # fmt: skip


@pytest.mark.parametrize("changes", FAMILIES, ids=str)
def test_a_family_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    """Through the names and layouts of GPT-NeoX or GPT-Neo, where queries are scaled and back: by a rounding each."""
    weights = random_parameters(sizes(ALPHABET, **changes))
    export_hub(weights, Tokenizer(ALPHABET), 3, tmp_path / "hf")
    run = brought_in(tmp_path / "hf")
    assert run.model.config == replace(weights.config, bias=True)
    same(run, with_biases(weights), 0.0 if "positions" in changes else 2 * np.finfo(weights.config.dtype).eps)


def test_each_head_of_gpt_neox_has_its_queries_keys_and_values_together() -> None:
    stored = np.arange(3 * 2 * 2 * 5).reshape(12, 5)  # 2 heads of 2 channels; rows are q, q, k, k, v, v by head
    rows = [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]
    np.testing.assert_array_equal(by_head(stored, 2), stored[rows])
    np.testing.assert_array_equal(by_part(stored[rows].T, 2), stored.T)
    np.testing.assert_array_equal(by_head(stored[:, 0], 2), stored[rows, 0])


@pytest.fixture
def neox(tmp_path: Path) -> Path:
    export_hub(random_parameters(sizes(ALPHABET, positions="rotary", heads=3)), Tokenizer(ALPHABET), 0, tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def neo(tmp_path: Path) -> Path:
    export_hub(random_parameters(sizes(ALPHABET, window=3, bias=False)), Tokenizer(ALPHABET), 0, tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_parallel_residual": True}, "has use_parallel_residual True; this program computes False."),
        ({"rotary_pct": 0.25}, "has rotary_pct 0.25; this program computes 1.0."),
        ({"rotary_emb_base": 500_000}, "has rotary_emb_base 500000; this program computes 10000"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "this program computes None."),
        ({"rope_parameters": {"rope_theta": 10_000}}, "has rotary_pct 0.25"),
        ({"rope_parameters": {"partial_rotary_factor": 1.0, "rope_type": "yarn"}}, "has rope_scaling 'yarn'"),
        ({"layer_norm_eps": 1e-12}, "has layer_norm_eps 1e-12"), ({"intermediate_size": 24}, "its MLP has 24 channels"),
        ({"hidden_act": "silu"}, "has the activation 'silu'"), ({"num_attention_heads": 4}, "must be even."),
        ({"num_hidden_layers": 3}, "has no tensor h.2."),
    ],
)
def test_gpt_neox_that_is_not_ours(
    neox: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    change(neox, "config.json", **changes)
    assert words in refused(capsys, neox)


def test_gpt_neox_as_version_5_describes_it(neox: Path) -> None:
    """With its rotations in one object, and the head by another name."""
    description = json.loads((neox / "config.json").read_text())
    del description["rotary_pct"], description["rotary_emb_base"]
    rope = {"rope_theta": 10_000.0, "partial_rotary_factor": 1.0, "rope_type": "default"}
    (neox / "config.json").write_text(json.dumps(description | {"rope_parameters": rope, "tie_word_embeddings": False}))
    tensors = read_file(neox / "model.safetensors")
    head = tensors["gpt_neox.embed_in.weight"] + 1
    masks = {"gpt_neox.layers.0.attention.bias": np.tri(8, dtype=bool),
             "gpt_neox.layers.0.attention.masked_bias": head[0],
             "gpt_neox.layers.1.attention.rotary_emb.inv_freq": head[0]}  # fmt: skip
    write_safetensors(neox / "model.safetensors", tensors | masks | {"lm_head.weight": head})
    run = brought_in(neox)
    np.testing.assert_array_equal(run.model.parameters["lm_head.weight"], head)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_types": [[["global"], 1]]}, "its attention_types are not those of 2 layers."),
        ({"attention_types": [[["local", "sparse"], 1]]}, "its attention_types are not those of 2 layers."),
        ({"attention_types": 5}, "is incomplete: TypeError"),
        ({"attention_types": [[["local"], 1 << 60]]}, "its attention_types are not those of 2 layers."),
        ({"attention_types": [[[], 1 << 60]]}, "its attention_types are not those of 2 layers."),
        ({"num_layers": 1 << 60}, "--layers is 1,152,921,504,606,846,976; it must be from 1 to 4,096."),
        ({"num_layers": 4, "attention_types": [[["global"], 2], [["local"], 2]]},
         "its layers 2, 3 see 3 positions; this program has such windows in all layers or in every second one, or "
         "reads contexts of up to 3."),
    ],
)  # fmt: skip
def test_gpt_neo_that_is_not_ours(
    neo: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    change(neo, "config.json", **changes)
    assert words in refused(capsys, neo)


@pytest.mark.parametrize("window", [8, 9])
def test_a_window_that_hides_nothing_needs_no_pattern(window: int, tmp_path: Path) -> None:
    """In a context that is no longer."""
    weights = random_parameters(sizes(ALPHABET, window=3, bias=False, layers=4))
    export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "hf")
    types = [[["global"], 2], [["local"], 2]]
    change(tmp_path / "hf", "config.json", attention_types=types, window_size=window)
    assert brought_in(tmp_path / "hf").model.config.window == 0


def without(folder: Path, *names: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({name: v for name, v in json.loads(path.read_text()).items() if name not in names}))


def test_what_a_description_leaves_out(neox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Has the value that transformers gives it, which need not be ours."""
    without(neox, "tie_word_embeddings", "hidden_act", "hidden_dropout", "layer_norm_eps", "rotary_emb_base")
    assert "has no tensor lm_head.weight." in refused(capsys, neox)
    change(neox, "config.json", tie_word_embeddings=True)
    run = brought_in(neox)
    assert (run.model.config.activation, run.model.config.dropout) == ("gelu_erf", 0.0)
    without(neox, "rotary_pct")
    assert "has rotary_pct 0.25" in refused(capsys, neox)
    without(neox, "use_parallel_residual")
    assert "has use_parallel_residual True" in refused(capsys, neox)


def test_the_usual_gpt_neo(neo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A window of 256 in every second layer, from the second on, of 24."""
    without(neo, "window_size", "attention_types")
    assert "its attention_types are not those of 2 layers." in refused(capsys, neo)
    change(neo, "config.json", num_layers=24)
    assert "has no tensor h.2.attn.c_attn.weight." in refused(capsys, neo)
    weights = random_parameters(sizes(ALPHABET, ctx=300, window=256, window_layers="odd", bias=False))
    export_hub(weights, Tokenizer(ALPHABET), 0, neo.parent / "long")
    without(neo.parent / "long", "window_size")
    assert brought_in(neo.parent / "long").model.config.windows == (0, 256)


@pytest.mark.parametrize(
    "changes",
    [{"positions": "rotary", "activation": "gelu_erf"}, {"window": 3, "window_layers": "odd", "bias": False}],
    ids=str,
)
def test_every_command_works_on_what_was_brought_in(changes: dict[str, Any], tmp_path: Path) -> None:
    export_hub(random_parameters(sizes(ALPHABET, **changes)), Tokenizer(ALPHABET), 0, tmp_path / "hf")
    folder, text, numpy = str(brought_in(tmp_path / "hf").folder), tmp_path / "text.txt", ["--backend", "numpy"]
    text.write_text("abc \né" * 300, "utf-8", newline="")
    tuned, prompt = str(tmp_path / "tuned"), ["--prompt", "abc"]
    few = ["--steps", "2", "--eval-batches", "1", "--batch", "2", "--film", "2"]
    for line in (
        ["generate", folder, "--length", "20", *prompt, *numpy],
        ["attention", folder, "--out", str(tmp_path / "maps.svg"), *prompt, *numpy],
        ["explore", folder, "--out", str(tmp_path / "page.html"), *prompt, *numpy],
        ["train", "--init", folder, "--data", str(text), "--out", tuned, *few, *numpy],
        ["train", "--resume", tuned, "--steps", "3", *numpy],
        ["export", tuned, "--to", str(tmp_path / "again")] if changes.get("bias", True) else ["parameters", tuned],
    ):  # fmt: skip
        assert main(line) == 0, line
    assert Run.load(tuned, "numpy").model.config.windows == ((0, 3) if "window" in changes else (0, 0))


@pytest.mark.parametrize("changes", [{}, {"positions": "rotary"}], ids=str)
def test_what_is_written_for_transformers_says_so(changes: dict[str, Any], tmp_path: Path) -> None:
    """Version 4 refuses files without it."""
    export_hub(random_parameters(sizes(ALPHABET, **changes)), Tokenizer(ALPHABET), 0, tmp_path / "hf")
    assert b'"format":"pt"' in (tmp_path / "hf" / "model.safetensors").read_bytes().replace(b" ", b"")


# -------------------------------------------------------------------------------------------------------- damaged files


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
