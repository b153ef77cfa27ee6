"""Whatever goes wrong, a command ends with one sentence and an exit code, never with a traceback."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import LoweringError, TypingError
from small_runs import Acting, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.commands.tables import FittedConsole, draw
from bevia_fast.errors import CheckpointError, ConfigError, DamagedFile, DataError, StoppedRun, UserError
from bevia_fast.runs.checkpoint import checkpoints
from bevia_fast.training import loop
from bevia_fast.training.step import Trainer

ARGUMENTS = {
    "UnicodeDecodeError": ("utf-8", b"\xff", 0, 1, "wrong"), "UnicodeEncodeError": ("ascii", "é", 0, 1, "wrong"),
    "UnicodeTranslateError": ("é", 0, 1, "wrong"), "BaseExceptionGroup": ("two", [KeyboardInterrupt()]),
    "ExceptionGroup": ("two", [ValueError("one")]), "JSONDecodeError": ("wrong", "[", 0),
}  # fmt: skip


class Mute(Exception):
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise ValueError


class Base(BaseException):
    """Not an Exception, as some libraries have them."""


CLASSES = [
    *{cls for cls in vars(builtins).values() if isinstance(cls, type) and issubclass(cls, BaseException)},
    np.linalg.LinAlgError, json.JSONDecodeError, zlib.error, zipfile.BadZipFile, re.error, subprocess.SubprocessError,
    UserError, ConfigError, DataError, CheckpointError, DamagedFile, StoppedRun, LoweringError, TypingError, Mute, Base,
]  # fmt: skip
UNDERSTOOD = (UserError, StoppedRun, OSError, MemoryError, KeyboardInterrupt, SystemExit)


@pytest.mark.parametrize("cls", sorted(CLASSES, key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("where", ["parse", "run"])
def test_no_exception_class_reaches_a_user_as_a_traceback(
    cls: type[BaseException], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object) -> int:
        raise cls(*ARGUMENTS.get(cls.__name__, ("bad\nthings\x1b[2J",)))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(f"bevia_fast.commands.main.{where}", fail)
    code = main(["doctor", "--threads", "1"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "\x1b" not in err
    saved = list(tmp_path.iterdir())
    if cls is KeyboardInterrupt:
        assert (code, err, saved) == (130, "", [])
    elif issubclass(cls, BrokenPipeError):
        assert (code, err, saved) == (141, "", [])
    else:
        assert code == (2 if issubclass(cls, UserError | MemoryError) else 1)
        assert err.startswith("bevia-fast: error: ")
        assert err.count("\n") == 1
        assert err.endswith(".\n") or issubclass(cls, UserError | StoppedRun | SystemExit)
        assert len(saved) == (not issubclass(cls, UNDERSTOOD))
    for path in saved:
        assert str(path) in err
        assert cls.__name__ in err
        text = path.read_text()
        assert "Traceback (most recent call last)" in text
        assert "test_last_resort.py" in text
        assert "arguments: ['doctor', '--threads', '1']" in text
        assert path.stat().st_mode & 0o077 == 0 or os.name == "nt"  # a prompt is nobody else's business


def test_without_a_folder_for_temporary_files_there_is_still_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr("bevia_fast.commands.main.run", lambda config: 1 // 0)
    assert main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("bevia-fast: error: Unexpected ZeroDivisionError: integer division or modulo by zero. The")
    assert err.count("\n") == 1


# ------------------------------------------------------------------------------------------------ decorations of a run


FAILURES = (ValueError("Key backend: 'nonsense' is not valid"), RuntimeError("latex could not be found"),
            OSError(28, ""), KeyError("loss"), MemoryError(), ImportError("no matplotlib"),
            RecursionError())  # fmt: skip


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("end", ["finished", "Ctrl-C", "NaN"])
def test_a_picture_that_fails_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, end: str
) -> None:
    """The sample, the last line, and the message of a run that stopped come all the same."""

    def fail(records: object) -> None:
        raise error

    monkeypatch.setattr("bevia_fast.plots.draw_losses", fail)
    config = tiny_config(tmp_path)
    if end != "finished":
        backward, conclude = Trainer.backward, loop._Session._conclude

        def act(session: loop._Session, record: dict[str, object]) -> None:
            conclude(session, record)
            if end == "Ctrl-C" and record["step"] == 5:
                os.kill(os.getpid(), 2)

        monkeypatch.setattr(loop._Session, "_conclude", act)
        if end == "NaN":
            monkeypatch.setattr(Trainer, "backward",
                                lambda self, step: float("nan") if step == 5 else backward(self, step))  # fmt: skip
    model = "--ctx 8 --dim 8 --layers 1 --heads 1 --batch 2 --steps 10 --sample-every 0 --backend numpy"
    code = main(["train", "--data", config.data[0], *model.split(), "--out", config.out])
    out, err = capsys.readouterr()
    assert code == {"finished": 0, "Ctrl-C": 130, "NaN": 1}[end]
    assert "note     loss.png cannot be drawn: " in out
    files = {path.name for path in Path(config.out).iterdir()}
    assert "loss.png" not in files
    if end == "NaN":
        assert err.startswith("bevia-fast: error: Stopped at step 5: the loss is nan")
        assert checkpoints(Path(config.out))[0][0] == 4
    else:
        assert err == ""
        assert "sample.txt" in files
        assert "aved in " + config.out in out


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_picture_of_a_measurement_that_fails_is_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """The measurement took minutes, and its results are on the screen."""

    def fail() -> bytes:
        raise error

    draw(FittedConsole(), str(tmp_path / "picture.png"), fail)
    said = " ".join(capsys.readouterr().out.split())
    assert re.fullmatch(r"note: \S*picture\.png cannot be drawn: .+\.", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [
    {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {"MPLBACKEND": "nonsense"},
    {"MATPLOTLIBRC": "text.usetex: True"}, {"MATPLOTLIBRC": "nonsense: 1"}, {"MATPLOTLIBRC": "font.family: nonsense"},
    {"MPLCONFIGDIR": "/dev/null/x"}, {"HOME": "/dev/null", "MPLCONFIGDIR": ""}, {"TMPDIR": "/nonexistent"},
], ids=str)  # fmt: skip
def test_no_setting_of_matplotlib_ends_a_run(tmp_path: Path, setting: dict[str, str]) -> None:
    """Every Jupyter kernel exports MPLBACKEND; programs that are started there inherit it."""
    config = tiny_config(tmp_path)
    if "MATPLOTLIBRC" in setting:
        (tmp_path / "matplotlibrc").write_text(setting["MATPLOTLIBRC"])
        setting = {"MATPLOTLIBRC": str(tmp_path)}
    model = "--ctx 8 --dim 8 --layers 1 --heads 1 --batch 2 --steps 4 --sample-every 0 --backend numpy"
    done = subprocess.run(
        [sys.executable, "-m", "bevia_fast", "train", "--data", config.data[0], *model.split(), "--out", config.out],
        env={**os.environ, **setting}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Saved in") == 1
    assert (Path(config.out) / "sample.txt").exists()
    assert "cannot be drawn" in done.stdout or (Path(config.out) / "loss.png").exists()


def test_a_reporter_that_fails_loses_no_steps(tmp_path: Path) -> None:
    """Its exception reaches the caller, because it is their code; but the run is saved before."""
    config = tiny_config(tmp_path, save_every=0)
    with pytest.raises(ZeroDivisionError):
        train(config, Acting(7, lambda: 1 // 0))
    assert checkpoints(Path(config.out))[0][0] == 7


def test_an_update_that_fails_half_way_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights belong to no step; the checkpoint before stays the newest."""
    update = Trainer.update

    def fail(self: Trainer, step: int, *rest: float) -> tuple[float, float]:
        if step == 5:
            raise MemoryError
        return update(self, step, *rest)

    monkeypatch.setattr(Trainer, "update", fail)
    config = tiny_config(tmp_path)
    with pytest.raises(MemoryError):
        train(config)
    assert checkpoints(Path(config.out))[0][0] == 3


def test_a_clock_that_stands_still_is_no_division_by_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 7.0)
    run = train(tiny_config(tmp_path))
    assert all(record["tokens_per_s"] > 0 for record in run.history[1:])
    monkeypatch.setattr("time.perf_counter", iter(range(10**6, 0, -1)).__next__)  # and one that runs backward
    run = train(tiny_config(tmp_path, "other"))
    assert all(record["tokens_per_s"] > 0 for record in run.history[1:])
