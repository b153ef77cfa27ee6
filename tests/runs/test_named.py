"""What can be named instead of a run, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import tiny_config

from bevia_fast import Run, generate, train
from bevia_fast.commands.main import main
from bevia_fast.errors import CheckpointError, DataError
from bevia_fast.planning.plan import make_plan
from bevia_fast.runs.checkpoint import checkpoints, stored_config
from bevia_fast.runs.modelfile import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config(tmp_path_factory.mktemp("named"), steps=6, save_every=3)).folder


def test_a_checkpoint_is_taken_for_the_model_in_it(run: Path) -> None:
    (_, newest), (_, older) = checkpoints(run)
    whole = load_model(run)[0].flat
    assert (load_model(newest)[0].flat == whole).all()
    assert not np.array_equal(load_model(older)[0].flat, whole)
    assert load_model(older)[1].alphabet == load_model(run)[1].alphabet
    assert generate(newest, "the", length=9, backend="numpy") == generate(run, "the", length=9, backend="numpy")
    loaded = Run.load(older, "numpy")
    assert loaded.folder == run
    assert len(loaded.history) == 7
    assert main(["attention", str(older), "--prompt", "the", "--backend", "numpy"]) == 0
    assert (run / "attention.png").is_file()


def test_a_model_that_lies_beside_a_folder_of_checkpoints_is_not_part_of_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "models").mkdir()
    path = shutil.copy(run / "model.safetensors", tmp_path / "models" / "m.safetensors")
    assert Run.load(path, "numpy").folder == tmp_path / "models"


@pytest.mark.parametrize(
    "name",
    ["options.json", "config.json", "tokenizer.json", "metrics.jsonl", "loss.png", "sample.txt", "checkpoints"],
)
def test_other_parts_of_a_run_lead_to_the_run(run: Path, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(run / name)
    assert str(caught.value).endswith(f"; the run is {run}.")


@pytest.mark.parametrize("name", ["model.safetensors", "options.json", "checkpoints", "CHECKPOINT"])
def test_resuming_a_part_of_a_run_leads_to_the_run(run: Path, name: str) -> None:
    part = checkpoints(run)[0][1] if name == "CHECKPOINT" else run / name
    with pytest.raises(CheckpointError) as caught:
        stored_config(part)
    assert str(caught.value) == f"{part} is part of a run; name the run, {run}, to resume its newest checkpoint."


def test_resuming_a_file_says_that_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^There is no run \S+file, but a file of this name\.$"):
        stored_config(tmp_path / "file")


def test_resuming_in_another_folder_mentions_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    monkeypatch.chdir(home)
    tiny_config(home)
    train(tiny_config(home, steps=2, data=("text.txt",), out="run"))
    monkeypatch.chdir(away)
    config = stored_config(home / "run")
    words = f"{home / 'run'} was trained on text.txt, which is not there in {away}; name the text with data."
    for act in (train, make_plan):
        with pytest.raises(DataError) as caught:
            act(replace(config, steps=3))
        assert str(caught.value) == words
    assert main(["train", "--resume", str(home / "run"), "--data", "nowhere.txt"]) == 2
    assert "Cannot read nowhere.txt" in capsys.readouterr().err
    resumed = train(replace(config, steps=3, data=(str(home / "text.txt"),)))
    assert len(resumed.history) == 4
    os.rename(home / "text.txt", home / "moved.txt")
    with pytest.raises(DataError, match=rf"trained on {home}/text\.txt, which is not there; name the text with data"):
        train(replace(stored_config(home / "run"), steps=4))
