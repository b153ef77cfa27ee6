"""The files for transformers, without transformers: what is in them, where they are, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_parameters
from small_runs import TINY, tiny_config

from bevia_fast.commands.arguments import parse
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.doors import exporting
from bevia_fast.doors.hub import hub_files
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.files import HUB
from bevia_fast.reporter import Reporter
from bevia_fast.runs.checkpoint import resume
from bevia_fast.runs.modelfile import load_model
from bevia_fast.runs.trained import Run
from bevia_fast.training.loop import train

ALPHABET = "\n abc"
MODEL = ModelConfig(ctx=7, dim=12, layers=3, heads=2, dropout=0.25, vocab_size=len(ALPHABET))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub")
    train(tiny_config(place, steps=2), Reporter())
    train(tiny_config(place, "bare", steps=2, model=replace(TINY, bias=False)), Reporter())
    train(tiny_config(place, "post", steps=2, model=replace(TINY, norm="post")), Reporter())
    train(tiny_config(place, "rotary", steps=2, model=replace(TINY, positions="rotary")), Reporter())
    return place


def described(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hub_files(replace(MODEL, **changes), Tokenizer(ALPHABET))["config.json"])
    return found


def test_the_sizes_are_those_of_the_model() -> None:
    found = described()
    wanted = {
        "vocab_size": 5, "n_positions": 7, "n_ctx": 7, "n_embd": 12, "n_layer": 3, "n_head": 2, "embd_pdrop": 0.25,
        "attn_pdrop": 0.25, "resid_pdrop": 0.25, "layer_norm_epsilon": 1e-5, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    assert wanted.items() <= found.items()
    for ours, theirs in (("gelu", "gelu_new"), ("gelu_erf", "gelu"), ("relu", "relu")):
        assert described(activation=ours)["activation_function"] == theirs
    assert (found["tie_word_embeddings"], described(tie=False)["tie_word_embeddings"]) == (True, False)
    assert (found["torch_dtype"], described(dtype="float64")["torch_dtype"]) == ("float32", "float64")


def test_other_families() -> None:
    """Rotary positions are GPT-NeoX's, and windows are GPT-Neo's."""
    found = described(positions="rotary", tie=False, activation="gelu_erf")
    wanted = {
        "model_type": "gpt_neox", "rotary_pct": 1.0, "rotary_emb_base": 10_000, "use_parallel_residual": False,
        "hidden_act": "gelu", "max_position_embeddings": 7, "hidden_size": 12, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 2, "tie_word_embeddings": False, "hidden_dropout": 0.25,
        "attention_dropout": 0.25, "layer_norm_eps": 1e-5, "eos_token_id": None,
    }  # fmt: skip
    assert wanted.items() <= found.items()
    for which, kinds in (
        ("alternate", ["local", "global", "local"]), ("odd", ["global", "local", "global"]), ("all", ["local"] * 3)
    ):  # fmt: skip
        found = described(window=5, window_layers=which)
        assert (found["model_type"], found["window_size"]) == ("gpt_neo", 5)
        assert found["attention_types"] == [[[kind], 1] for kind in kinds]
    assert described(window=7)["model_type"] == "gpt2"  # it hides nothing


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm": "post"}, "A model with norm='post' has no counterpart in other programs"),
        ({"scale": False}, "A model with scale=False has no counterpart in other programs"),
        ({"residual": False, "positions": "rotary"}, "A model with residual=False has no counterpart in other"),
        ({"positions": "rotary", "window": 3}, "A model with positions='rotary' and window=3 has no counterpart in"),
    ],
)
def test_what_has_no_counterpart_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{words}"):
        described(**changes)


def test_windows_need_queries_keys_and_values_without_biases(tmp_path: Path) -> None:
    weights = random_parameters(replace(MODEL, window=3))
    with pytest.raises(ConfigError, match="GPT-Neo in other programs, whose queries, keys and values have no biases"):
        exporting.export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []
    for layer in range(3):
        weights[f"h.{layer}.attn.c_attn.bias"][...] = 0  # as of an imported GPT-Neo
    exporting.export_hub(weights, Tokenizer(ALPHABET), 0, tmp_path / "hf")


def test_an_alphabet_that_no_file_can_hold() -> None:
    with pytest.raises(ConfigError, match="surrogate"):
        hub_files(MODEL, Tokenizer("abcd\ud800"))


def test_a_run_folder_describes_itself(folder: Path) -> None:
    run = Run.load(folder / "run", "numpy")
    files = hub_files(run.model.config, run.tokenizer)
    assert tuple(files) == HUB
    for name, text in files.items():
        assert (folder / "run" / name).read_text() == text
    assert not any((folder / run / name).exists() for run in ("post", "rotary") for name in HUB)


def test_a_run_of_an_earlier_version(folder: Path, tmp_path: Path) -> None:
    """Its config.json holds its options; resumed, it gets an options.json, and config.json is transformers'."""
    old = shutil.copytree(folder / "run", tmp_path / "old")
    for name in HUB:
        (old / name).unlink()
    (old / "options.json").rename(old / "config.json")
    wanted = Run.load(folder / "run", "numpy").config
    assert Run.load(old, "numpy").config == wanted
    assert parse(["train", "--config", str(old)]) == parse(["train", "--config", str(folder / "run")])
    assert parse(["train", "--config", str(old / "config.json")]) == parse(["train", "--config", str(old)])
    train(resume(old, steps=3), Reporter())
    assert Run.load(old, "numpy").config.steps == 3
    assert json.loads((old / "config.json").read_text())["model_type"] == "gpt2"


def test_the_description_has_no_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(folder / "run" / "config.json")]) == 2
    words = "describes a model to other programs; the options of a run are in its options.json.\n"
    assert capsys.readouterr().err.endswith(words)


def test_a_folder_with_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokenizer.json").write_text("mine")
    with pytest.raises(CheckpointError, match=r"contains a file tokenizer\.json, which the run would overwrite"):
        train(tiny_config(tmp_path), Reporter())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokenizer.json"]


# -------------------------------------------------------------------------------------------------------------- export


def export(run: Path, to: Path | str) -> int:
    return main(["export", str(run), "--to", str(to)])


def test_an_export_computes_the_same(folder: Path, tmp_path: Path) -> None:
    tokens = np.arange(8)[None]
    for name in ("run", "bare"):
        to = tmp_path / name
        assert export(folder / name, to) == 0
        assert sorted(path.name for path in to.iterdir()) == sorted(["model.safetensors", *HUB])
        runs = Run.load(folder / name, "numpy"), Run.load(to, "numpy")
        assert runs[1].model.config.bias
        assert np.array_equal(*(run.model.logits(tokens) for run in runs))
        assert runs[0].tokenizer.alphabet == runs[1].tokenizer.alphabet


@pytest.mark.parametrize(
    ("run", "to", "words"),
    [
        ("post", "new", "error: A model with --norm post has no counterpart"),
        ("run", "full", "is not empty; choose a new folder with --to."),
        ("run", "file", "is not a folder; choose another one with --to."),
        ("run", "file/below", "Cannot write"),
        ("none", "new", "There is no run"),
    ],
)
def test_an_export_that_cannot_be(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, to: str, words: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert export(folder / run, tmp_path / to) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_is_written_whole_or_not_at_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise CheckpointError("Cannot write: No space left on device.")

    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_atomically", full)
        for name in ("new", "empty"):
            assert export(folder / "run", tmp_path / name) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []
    assert export(folder / "run", tmp_path / "empty") == 0
    assert load_model(tmp_path / "empty")


def test_export_needs_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(folder / "run")]) == 2
    assert "--to needs the name of what to write." in capsys.readouterr().err
