"""`train` as Python calls it: what it takes, and where it shows the run."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import tiny_config

from bevia_fast import ModelConfig, Reporter, TrainConfig, UserError, train
from bevia_fast.errors import ConfigError
from bevia_fast.naming import on_the_command_line

pytestmark = pytest.mark.usefixtures("quick_runs")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Names(Reporter):
    """Notes the names of its events."""

    def __init__(self) -> None:
        self.names: list[str] = []
        for name in EVENTS:
            setattr(self, name, self._noting(name))

    def _noting(self, name: str) -> Any:
        original = getattr(super(), name)

        def note(*arguments: Any) -> Any:
            self.names.append(name)
            return original(*arguments)

        return note


EVENTS = [name for name in vars(Reporter) if not name.startswith("_")]


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


class Broken(io.StringIO):
    """A terminal whose window is gone, or a file on a disk that is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(32, "gone"), OSError(28, "full"), ValueError("closed")])
def test_a_display_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(sys, "stderr", Broken(error))
    run = train(tiny_config(tmp_path), progress=True)
    assert (run.step, run.interrupted) == (10, 0)
    monkeypatch.setattr(sys, "stderr", None)
    assert train(tiny_config(tmp_path, "again"), progress=True).step == 10


def test_no_text_is_dim_or_yellow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A light background hides both."""
    terminal = at_a_terminal(monkeypatch)
    monkeypatch.setattr("bevia_fast.commands.console.SHOW_AFTER", 0.0)
    train(tiny_config(tmp_path))
    assert "\x1b[" in terminal.getvalue()
    assert not re.search(r"\x1b\[(\d+;)*(2|33|37)m", terminal.getvalue())


def test_a_run_is_shown_in_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with commands that Python understands."""
    terminal = at_a_terminal(monkeypatch)
    run = train(tiny_config(tmp_path))
    shown = terminal.getvalue()
    assert "10/10" in shown  # a bar
    assert f"Try: generate({str(run.folder)!r})" in "".join(shown.split("\n"))
    assert capsys.readouterr().out == ""


def test_a_run_is_shown_beside_a_reporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, names = at_a_terminal(monkeypatch), Names()
    train(tiny_config(tmp_path), names)
    assert "10/10" in terminal.getvalue()
    assert names.names.count("step") == 11
    assert names.names[-1] == "end"


def test_silence_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    train(tiny_config(tmp_path), progress=False)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("stream", ["captured", "none", "closed", "no stream"])
def test_silence_where_nobody_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], stream: str
) -> None:
    closed = io.StringIO()
    closed.close()
    others: dict[str, Any] = {"none": None, "closed": closed, "no stream": SimpleNamespace(write=len)}
    if stream in others:
        monkeypatch.setattr(sys, "stderr", others[stream])
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take anything for a terminal
    monkeypatch.setattr("bevia_fast.commands.from_python._shown_on_a_console", lambda: pytest.fail("shown"))
    train(tiny_config(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_lines_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_config(tmp_path), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\nstep ") == 11
    assert "\x1b" not in err


def test_several_reporters(tmp_path: Path) -> None:
    some = [Names(), Names()]
    train(tiny_config(tmp_path, sample_every=5, model=ModelConfig(ctx=8, dim=8, layers=1, heads=1)), some)
    assert some[0].names == some[1].names
    assert set(some[0].names) >= {"start", "fact", "compiled", "counting", "step", "sample", "saved", "end"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("x.txt", "a text to train on is named in it: train(TrainConfig(data=['x.txt']))."),
        (Path("x.txt"), "a text to train on is named in it: train(TrainConfig(data=['x.txt']))."),
        ("seed", "a preset makes one: train(preset('seed'))."),
        (ModelConfig(), "the model is a part of it: train(TrainConfig(model=...))."),
        ({"steps": 5}, "its options are arguments: train(TrainConfig(**options))."),
        (5, "train() uses the defaults, and train(TrainConfig(steps=200)) changes them."),
        (["x.txt"], "train() uses the defaults, and train(TrainConfig(steps=200)) changes them."),
        ("", "a text to train on is named in it"),
    ],
)
def test_what_train_takes(given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^train takes a TrainConfig, not ") as caught:
        train(given)
    assert words in str(caught.value)


def test_what_a_reporter_is(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    for given in (print, [Names(), 5], "tensorboard", True):
        with pytest.raises(UserError, match=r"it must be a Reporter, or a list of them\.$"):
            train(config, given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^reporter is the class Names; it must be an object of it: Names\(\)\.$"):
        train(config, Names)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^progress is 'no'; it must be True, False or None\.$"):
        train(config, progress="no")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_default_is_a_run_of_the_default_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("bevia_fast.commands.from_python.run_to_end", lambda *arguments: given.append(arguments))
    train()
    with on_the_command_line():
        train(None)
    assert [config for config, _ in given] == [TrainConfig()] * 2
