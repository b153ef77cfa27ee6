"""Signals such as Ctrl-C at every kind of moment: the run is saved, can be resumed, and ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import TEXT, Acting, result, tiny_config

from bevia_fast import train
from bevia_fast.runs.checkpoint import newest_good, stored_config
from bevia_fast.training import loop
from bevia_fast.training.signals import finish_on_signal
from bevia_fast.training.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_runs")

SLOW = pytest.mark.slow
NUMBERS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW), pytest.param(signal.SIGHUP, marks=SLOW)]
OPTIONS = {"sample_every": 5, "eval_every": 4, "eval_batches": 0}


class At:
    """Sends signals to this process when a function is called for the n-th time."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, call: int, signals: list[int]) -> None:
        self.function, self.call, self.signals, self.count = getattr(owner, name), call, signals, 0
        sender = self

        def calling(*args: Any, **options: Any) -> Any:
            sender.count += 1
            if sender.count == sender.call:
                for number in sender.signals:
                    os.kill(os.getpid(), number)
            return sender.function(*args, **options)

        patch.setattr(owner, name, calling)


# Where a run is when the signal arrives: the function, and the number of its call.
MOMENTS: list[tuple[str, Callable[[], tuple[Any, str]], int]] = [
    ("step", lambda: (Trainer, "backward"), 6),
    ("update", lambda: (Trainer, "update"), 6),
    ("evaluation before the first step", lambda: (loop, "evaluate"), 1),
    ("evaluation", lambda: (loop, "evaluate"), 2),
    ("last evaluation", lambda: (loop, "evaluate"), 4),
    ("sampling", lambda: (loop, "short_sample"), 1),
    ("saving before the first step", lambda: (os, "fsync"), 2),
    ("saving: flushing to disk", lambda: (os, "fsync"), 8),
    ("saving: reading back", lambda: (os, "read"), 150),
    ("saving: renaming", lambda: (os, "replace"), 4),
    ("saving: removing the old checkpoint", lambda: (os, "unlink"), 1),
]
each_moment = pytest.mark.parametrize("moment", MOMENTS, ids=[name for name, _, _ in MOMENTS])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, list[dict[str, Any]]]:
    return result(train(tiny_config(tmp_path_factory.mktemp("whole"), **OPTIONS)).folder)


@each_moment
@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_a_signal_finishes_the_step_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Any, number: int, whole: Any
) -> None:
    _, where, call = moment
    with monkeypatch.context() as patch:
        sender = At(patch, *where(), call, [number])
        run = train(tiny_config(tmp_path, **OPTIONS))
    assert sender.count >= call
    assert run.interrupted == number
    assert not list(run.folder.rglob(".*.part"))
    again = train(stored_config(run.folder))
    assert not again.interrupted
    assert result(run.folder) == whole


@each_moment
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)], ids=str)
def test_a_second_signal_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Any, number: int, whole: Any
) -> None:
    """Nothing more is saved, and earlier saves are intact."""
    name, where, call = moment
    with monkeypatch.context() as patch:
        At(patch, *where(), call, [number, number])
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            train(tiny_config(tmp_path, **OPTIONS))
    if number == signal.SIGTERM:
        assert isinstance(caught.value, SystemExit)
        assert caught.value.code == 143
    assert not list((tmp_path / "run").rglob(".*.part"))
    if name == "saving before the first step":
        return  # there is no checkpoint yet, and nothing is lost
    assert newest_good(tmp_path / "run")[1] == []
    train(stored_config(tmp_path / "run"))
    assert result(tmp_path / "run") == whole


def test_a_second_hangup_is_ignored() -> None:
    with finish_on_signal(lambda: None) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop() == signal.SIGHUP
        with pytest.raises(SystemExit):  # any other second signal counts
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_while_the_console_prints_raises_nothing() -> None:
    def fail() -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    with finish_on_signal(fail) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == signal.SIGINT


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with finish_on_signal(lambda: None) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop() == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_pipe_loses_no_steps(tmp_path: Path) -> None:
    def gone() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        train(tiny_config(tmp_path), Acting(5, gone))
    assert newest_good(tmp_path / "run")[0].progress.step == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_exit_codes(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    process = subprocess.Popen(
        [sys.executable, "-m", "bevia_fast", "train", "--data", "text.txt", "--ctx", "8", "--dim", "8", "--heads", "2",
         "--steps", "1000000", "--backend", "numpy", "--out", "run", "--eval-every", "1000000", "--sample-every", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and metrics.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert "Finishing this step and saving; press Ctrl-C again to stop at once." in out
    assert "Interrupted; saved in run. Resume with: bevia-fast train --resume run\n" in out
    assert newest_good(tmp_path / "run")[0].progress.step >= 3
