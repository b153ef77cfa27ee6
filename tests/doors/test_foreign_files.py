"""Files of llm.c and nanoGPT become runs; code in a pickle, and what is damaged, is refused."""

from __future__ import annotations

import copy
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bringing_in import brought_in, refused, same
from helpers import random_parameters
from writing_foreign import nanogpt_checkpoint, sizes, write_llmc, write_torch

from bevia_fast.model.parameters import Parameters

ALPHABET = "\n abcé"


@pytest.fixture
def weights() -> Parameters:
    return random_parameters(sizes(ALPHABET))


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
    return "--vocabulary", str(checkpoint.parent / "meta.pkl")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_nanogpt(checkpoint: Path, bias: bool, prefix: str) -> None:
    """Compiled or not; its linear layers are transposed, here also in memory, and it need not have biases."""
    weights = random_parameters(sizes(ALPHABET, bias=bias, dropout=0.5, activation="gelu_erf"))
    write_torch(checkpoint, nanogpt_checkpoint(weights, prefix))
    run = brought_in(checkpoint, *options(checkpoint))
    same(run, weights)
    assert run.model.config == weights.config
    assert run.step == 250


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
    with zipfile.ZipFile(checkpoint) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for changes, words in (
        ({"ckpt/byteorder": b"big"}, "has the byte order of another kind of machine."),
        ({"ckpt/data/0": parts["ckpt/data/0"][:-4]}, "a storage of 71 numbers instead of 72"),
        ({"other/data.pkl": b""}, "it holds 2 pickles."),
    ):  # fmt: skip
        with zipfile.ZipFile(checkpoint, "w") as archive:
            for name, content in (parts | changes).items():
                archive.writestr(name, content)
        assert words in refused(capsys, checkpoint, *options(checkpoint))
    for content in (b"", good[:100], good[:-30], pickle.dumps(5)):
        checkpoint.write_bytes(content)
        assert "was not written by PyTorch 1.6 or later" in refused(capsys, checkpoint, *options(checkpoint))
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ckpt/data.pkl", b"\0" * 1000)
    assert "is compressed" in refused(capsys, checkpoint, *options(checkpoint))
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("ckpt/data.pkl", b"\x80")
    assert "is damaged" in refused(capsys, checkpoint, *options(checkpoint))


def test_parts_that_overlap(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand names for the same megabyte would be a gigabyte in memory."""
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("ckpt/data.pkl", pickle.dumps(5))
        archive.writestr("ckpt/data/0", bytes(1 << 20))
        first = archive.infolist()[1]
        for number in range(1, 1000):
            again = copy.copy(first)
            again.filename = f"ckpt/data/{number}"
            archive.filelist.append(again)
    assert checkpoint.stat().st_size < 2 << 20
    assert "its parts are larger than the file." in refused(capsys, checkpoint, *options(checkpoint))


def test_a_vocabulary_of_nanogpt_without_characters(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_torch(checkpoint, {})
    for content in (5, {"itos": 5}, {}):
        (checkpoint.parent / "meta.pkl").write_bytes(pickle.dumps(content))
        assert "meta.pkl has no characters" in refused(capsys, checkpoint, *options(checkpoint))
