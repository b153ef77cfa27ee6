"""When a checkpoint is due, and that the names of a run's files reach the disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import TINY, tiny_config

from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.files import HUB
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.checkpoint import PARTS
from bevia_fast.runs.folder import RunFolder
from bevia_fast.runs.progress import Progress
from bevia_fast.training import saving
from bevia_fast.training.saving import Saver

MODEL = replace(TINY, vocab_size=2)


class Clock:
    """Time that passes only while a checkpoint is written."""

    def __init__(self) -> None:
        self.now, self.takes = 1000.0, 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(saving, "time", clock)
    save = saving.save_checkpoint

    def slow(*arguments: Any) -> int:
        clock.now += clock.takes
        return save(*arguments)

    monkeypatch.setattr(saving, "save_checkpoint", slow)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return clock


def saver_of(folder: Path, **options: Any) -> Saver:
    run = RunFolder(str(folder / "run"))
    run.create({})
    tensors = {part: Parameters(MODEL) for part in PARTS}
    return Saver(
        run, tiny_config(folder, **options), Tokenizer("ab"), "text", Progress(), tensors, lambda note: None
    )


@pytest.mark.parametrize("seconds", [1e-3, 1.0, 120.0])
def test_seconds_between_checkpoints(tmp_path: Path, clock: Clock, seconds: float) -> None:
    saver = saver_of(tmp_path, save_every=0, save_seconds=seconds)
    saver.progress.step = 1
    for _ in range(2):
        assert not saver.due()
        clock.now += 0.99 * seconds
        assert not saver.due()
        clock.now += 0.02 * seconds
        assert saver.due()
        saver.save()
        saver.progress.step += 1


@pytest.mark.parametrize(("takes", "wait"), [(0.0, 120.0), (4.0, 120.0), (4.8, 120.0), (10.0, 250.0), (60.0, 1500.0)])
def test_saving_takes_at_most_4_percent_of_the_time(tmp_path: Path, clock: Clock, takes: float, wait: float) -> None:
    """On a slow disk, the interval grows with what the last save took; on a fast one, it is --save-seconds."""
    saver = saver_of(tmp_path, save_every=0, save_seconds=120.0)
    clock.takes, saver.progress.step = takes, 1
    saver.save()
    assert saver.seconds == pytest.approx(takes)
    clock.now += wait - 0.001
    assert not saver.due()
    clock.now += 0.002
    assert saver.due()
    assert takes / wait <= 0.04
    saver.progress.step, clock.takes = 2, 0.0
    saver.save()  # only the last save counts
    clock.now += 120.001
    assert saver.due()
    assert (saver.count, saver.seconds) == (2, pytest.approx(takes))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
def test_steps_between_checkpoints(tmp_path: Path, clock: Clock, step: int) -> None:
    saver = saver_of(tmp_path, save_every=3, save_seconds=0.0)
    clock.now += 1e9
    saver.progress.step = step
    assert saver.due() == (step in (3, 6))


def test_without_either_no_checkpoint_is_due(tmp_path: Path, clock: Clock) -> None:
    saver = saver_of(tmp_path, save_every=0, save_seconds=0.0)
    clock.now += 1e9
    assert not saver.due()


def test_the_names_that_lead_to_a_checkpoint_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power, a checkpoint that was written is found: each folder on the way knows the next name."""
    synced: list[str] = []
    paths = {"above": tmp_path, "run": tmp_path / "run", "checkpoints": tmp_path / "run/checkpoints"}

    def fsync(handle: int) -> None:
        known = {name: os.stat(path) for name, path in paths.items() if path.exists()}
        synced.extend(name for name, status in known.items() if os.path.samestat(os.fstat(handle), status))

    monkeypatch.setattr(os, "fsync", fsync)
    saver = saver_of(tmp_path)
    assert synced == ["above"]
    saver.progress.step = 1
    saver.save()
    # the names of the folder, the checkpoint, the model, and once of the files for other programs
    assert synced[1:] == ["run", "checkpoints", "run", *["run"] * len(HUB)]
    shutil.rmtree(paths["checkpoints"])
    saver.progress.step = 2
    saver.save()
    assert synced[4 + len(HUB) :] == ["run", "checkpoints", "run"]
