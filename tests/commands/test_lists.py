"""Several plans at once: options with several values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import tiny_config

from bevia_fast.commands.arguments import PlanCommand, PlansCommand, parse
from bevia_fast.commands.fields import command_options
from bevia_fast.commands.lists import MOST_PLANS, split
from bevia_fast.commands.main import main

KNOWN = command_options(PlanCommand)


def test_each_combination_is_a_plan_and_the_last_list_varies_first() -> None:
    command = parse(["plan", "--ctx", "64", "1,024", "--preset", "tiny", "--dtype", "float32", "float64", "--tie"])
    assert isinstance(command, PlansCommand)
    assert command.varying == ("--ctx", "--dtype")
    assert command.values == (("64", "float32"), ("64", "float64"), ("1,024", "float32"), ("1,024", "float64"))
    models = [plan.config.model for plan in command.plans]
    assert [(model.ctx, model.dtype) for model in models] == [
        (64, "float32"), (64, "float64"), (1024, "float32"), (1024, "float64"),
    ]  # fmt: skip
    assert {model.dim for model in models} == {64}, "the other options hold for all of them"


def test_presets_can_be_a_list() -> None:
    command = parse(["plan", "--preset", "tiny", "long", "--batch", "3"])
    assert [(plan.preset, plan.config.model.ctx, plan.config.batch) for plan in command.plans] == [
        ("tiny", 64, 3), ("long", 2048, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "rest", "lists"),
    [
        (["--ctx", "64"], ["--ctx", "64"], {}),
        (["--ctx=64", "128"], ["--ctx=64", "128"], {}),  # a text called 128
        (["--ctx", "64", "book.txt"], ["--ctx", "64", "book.txt"], {}),
        (["--ctx", "64", "128", "book.txt"], ["book.txt"], {"--ctx": ["64", "128"]}),
        (["--data", "1", "2"], ["--data", "1", "2"], {}),
        (["--recompute", "1", "2"], ["--recompute", "1", "2"], {}),
        (["--", "--ctx", "1", "2"], ["--", "--ctx", "1", "2"], {}),
        (["--hours", "1", ".5", "--ctx", "8"], ["--ctx", "8"], {"--hours": ["1", ".5"]}),
    ],
)
def test_what_is_a_list(words: list[str], rest: list[str], lists: dict[str, list[str]]) -> None:
    assert split(words, KNOWN) == (rest, lists)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ctx", "64", "64"], "--ctx has 64 twice; name each value once."),
        (["--ctx", "64", "65", "--ctx", "8", "9"], "--ctx is given twice; give it once, with all values."),
        (["--ctx", "64", "65", "--ctx", "8"], "--ctx is given twice"),
        (["--lr", "1", "2"], "--lr takes one value, because it does not change a plan."),
        (["--dim", "64", "100", "--heads", "3"], "--dim 64 is not divisible by --heads 3."),
        (["--ctx", "8", "0"], "--ctx is 0; it must be from 1 to 16,777,216."),
        (["--steps", "8", "9", "--minutes", "2", "3"], "--steps cannot be combined with --minutes"),
        (["--ctx", *map(str, range(1, 12)), "--batch", *map(str, range(1, 11))], "make more than 100 plans"),
    ],
)
def test_lists_that_do_not_fit(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_as_many_plans_as_are_allowed() -> None:
    words = ["--ctx", *map(str, range(1, 11)), "--batch", *map(str, range(1, 11))]
    assert len(parse(["plan", *words]).plans) == MOST_PLANS == 100


class Clockwork:
    """A forecast of 1 ms for each token of a step."""

    def __init__(self, config: Any, *others: Any) -> None:
        self.tokens = config.model.ctx * config.batch

    def seconds(self, step: Any) -> float:
        return self.tokens / 1e3

    def seconds_of(self, calls: Any) -> float:
        return 0.0


def test_a_row_for_each_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bevia_fast.planning.plan.StagedForecast", Clockwork)
    tiny_config(tmp_path)  # writes the text
    words = ["plan", "--data", str(tmp_path / "text.txt"), "--backend", "numpy", "--dim", "8", "--heads", "2",
             "--ctx", "8", "16", "--batch", "2", "4"]  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    assert main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    rows = [line.split() for line in shown if line[:2].strip().isdigit()]
    assert [row[:2] for row in rows] == [["8", "2"], ["8", "4"], ["16", "2"], ["16", "4"]]
    assert [row[4:6] for row in rows] == [["16.0", "ms"], ["32.0", "ms"], ["32.0", "ms"], ["64.0", "ms"]]
    assert {row[6] for row in rows} == {"1,000"}
    assert {row[-1] for row in rows} == {"yes"}
    monkeypatch.setattr("bevia_fast.planning.plan.available_bytes", lambda: 1)
    assert main([*words, "--minutes", "1", "2", "--json", "-"]) == 0
    output = capsys.readouterr()
    plans = json.loads(output.out)["plans"]
    assert [plan["budget"]["steps"] for plan in plans] == [3750, 7500, 1875, 3750, 1875, 3750, 937, 1875]
    for wanted in ("minutes", "3,750 steps", "NO"):
        assert wanted in output.err
