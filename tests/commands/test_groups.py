"""The help pages: options under headings, and for `plan` those that change a plan."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

from bevia_fast.commands.arguments import COMMANDS, PlanCommand, TrainCommand, parse
from bevia_fast.commands.fields import command_options
from bevia_fast.commands.groups import HEADINGS, NOT_PLANNED, ORDER, filled, page
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.describing import field_docstrings
from bevia_fast.planning.plan import make_plan


def groups(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Return the options under each heading of a help page."""
    assert main([command, "--help"]) == 0
    found: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        heading = re.match(r"(?:╭─)? (?:(\w+) )?options ", line)  # some terminals get no frame
        if heading:
            found[heading[1] or ""] = []
        elif option := re.match(r"[│ ] (?:-\w, )?(--[\w-]+)", line):
            list(found.values())[-1].append(option[1])
    return found


def test_train_has_its_options_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    found = groups("train", capsys)
    assert list(found) == ["", *ORDER]
    for heading, members in {
        "": {"--help", "--preset", "--recipe", "--config", "--out", "--seed"},
        "data": {"--data", "--allow-changed-text"},
        "model": {"--ctx", "--dim", "--layers", "--heads", "--tie", "--dtype"}, "memory": {"--recompute"},
        "optimizer": {"--steps", "--batch", "--lr", "--eps", "--on-nan"}, "backend": {"--backend", "--threads"},
        "evaluation": {"--eval-every", "--sample-every"}, "checkpoint": {"--resume", "--save-every", "--keep"},
    }.items():  # fmt: skip
        assert members <= set(found[heading]), heading
    listed = [option for options in found.values() for option in options]
    assert sorted(listed) == sorted({*command_options(TrainCommand), "--help"})
    assert found[""][:4] == ["--help", "--preset", "--recipe", "--config"]
    assert HEADINGS.keys() <= {option.field for option in command_options(TrainCommand).values()}


@dataclass(frozen=True)
class Quiet:
    """Defaults that help need not mention."""

    name: str = ""
    """A name, or none."""
    off: bool = False
    """A flag that is off."""
    on: bool = True
    """A flag that is on."""
    count: int = 3
    """A number."""


def test_an_empty_default_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tyro.cli(page(Quiet), args=["--help"])
    shown = capsys.readouterr().out
    assert re.findall(r"\(.*\)", shown) == ["(on by default)", "(default: 3)"]
    assert filled(Quiet, tyro.cli(page(Quiet), args=["--name", "x"])) == Quiet("x")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["bench", "step", "--help"], ["help", "generate"]])
def test_help_can_be_read_on_a_light_background(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with pytest.raises(SystemExit), contextlib.redirect_stdout(terminal):
        parse(words)
    styles = set(re.findall(r"\x1b\[([0-9;]*)m", terminal.getvalue()))
    assert {"", "0", "1"} <= styles <= {"", "0", "1", "36", "91"}  # plain, bold, cyan, and bright red


def test_every_option_has_a_description() -> None:
    for kind in (TrainConfig, ModelConfig, *COMMANDS.values()):
        about = field_docstrings(kind)
        for field in fields(kind):
            assert field.name in about or field.name in ("model", "config", "preset", "recipe"), (kind, field.name)


def deterministic(config: TrainConfig) -> dict[str, Any]:
    """Return what a plan says, without what depends on the machine's speed and its free memory."""
    plan = make_plan(config).as_object()
    for way in plan["ways"]:
        for name in ("ms", "seconds", "largest_ctx", "fits"):
            del way[name]
    return {name: value for name, value in plan.items() if name not in ("config", "available", "process", "kernels")}


def test_plan_lists_what_changes_a_plan_and_takes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forecast = SimpleNamespace(seconds=lambda step: 1.0)  # nothing is timed
    monkeypatch.setattr("bevia_fast.planning.plan.StagedForecast", lambda *sizes: forecast)
    monkeypatch.setattr("bevia_fast.planning.plan.largest_ctx", lambda *sizes, **ways: 8)
    found = groups("plan", capsys)
    for heading, members in {
        "": {"--help", "--preset", "--recipe", "--config", "--json", "--hours", "--fit"},
        "optimizer": {"--steps", "--minutes", "--batch", "--accumulate", "--ctx-schedule", "--optimizer"},
        "evaluation": {"--crosscheck-every"},
        "checkpoint": {"--resume", "--init", "--keep", "--film"}, "memory": {"--recompute"},
        "backend": {"--backend", "--threads"},
    }.items():  # fmt: skip
        assert set(found[heading]) == members, heading
    listed = {option for options in found.values() for option in options}
    known = command_options(PlanCommand)
    assert listed - {"--help"} == {name for name, option in known.items() if option.field not in NOT_PLANNED}
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 30)
    base = TrainConfig(
        data=(str(tmp_path / "text.txt"),), backend="numpy", model=ModelConfig(ctx=8, dim=8, layers=2, heads=2), batch=2
    )
    plain = deterministic(base)
    others = {"out": "x", "name": "x", "on_nan": "skip", "min_lr": 1e-9, "grad_clip": 2.0}
    for name in NOT_PLANNED:
        old = getattr(base, name)
        value = others[name] if name in others else not old if isinstance(old, bool) else type(old)(old / 2 or 1)
        assert value != old
        assert deterministic(replace(base, **{name: value})) == plain, name
        line = ["plan", f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        assert getattr(parse(line).config, name) == value
    for change in ({"steps": 7}, {"batch": 3}, {"accumulate": 2}, {"crosscheck_every": 1}, {"keep": 3}, {"film": 1}):
        assert deterministic(replace(base, **change)) != plain, change  # type: ignore[arg-type]
    for change in ({"ctx": 9}, {"dim": 16}, {"layers": 1}, {"tie": False}, {"bias": False}, {"dtype": "float64"}):
        model = replace(base.model, **change)  # type: ignore[arg-type]
        assert deterministic(replace(base, model=model)) != plain, change


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("bench", "profile")])
def test_pages_fit_into_eighty_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["help", command]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("usage: ")]
    assert max(map(len, lines)) <= 80
