"""Units and grammar of what train, plan and generate print: one layer, four layers, and times that can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bevia_fast.commands.main import main
from bevia_fast.commands.plan import step_rows
from bevia_fast.config import TrainConfig
from bevia_fast.errors import counted
from bevia_fast.machine import duration
from bevia_fast.planning.plan import make_plan

ONES = ["--ctx", "1", "--dim", "1", "--layers", "1", "--heads", "1", "--batch", "1", "--steps", "1",
        "--backend", "numpy"]  # fmt: skip
LONG = ["100" if before == "--ctx" else word for before, word in zip(["", *ONES], ONES, strict=False)]
ONE_OF_MANY = re.compile(r"(?<![\d.,])1 [a-z]{2,}s\b")  # "1 layers"
TOO_LONG = re.compile(r"\d+,\d{3} (ms|s|seconds|min)\b")  # "51,206 ms"


def wrong(text: str) -> list[str]:
    return [found[0] for pattern in (ONE_OF_MANY, TOO_LONG) for found in pattern.finditer(text)]


def test_wrong_phrases_are_found() -> None:
    assert wrong("1 layers, 11 layers, 0.1 seconds, 51,206 ms, 1 head") == ["1 layers", "51,206 ms"]


def test_one_of_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("ab" * 30)
    said = ""
    for line in (["plan", "text.txt", *ONES], ["train", "text.txt", *ONES, "--out", "run", "--sample-every", "1"],
                 ["train", "--resume", "run", "--steps", "2"], ["generate", "run", "--length", "1"],
                 ["parameters", "run"], ["plan", "text.txt", *LONG]):  # fmt: skip
        assert main(line) == 0
        said += capsys.readouterr().out
    for line in (["train", "text.txt", *LONG], ["generate", "run", "xy"], ["train", "--ctx", "0"],
                 ["attention", "run", "abab"], ["train", "--resume", "run", "--steps", "1"]):  # fmt: skip
        assert main(line) == 2
        said += capsys.readouterr().err
    for words in ("1 layer of 1 channel and 1 head", "1 token: 1 sequence of 1; 1 step", "in total, 1 step "):
        assert words in said
    assert wrong(said) == []


def test_a_slow_plan_is_in_readable_units(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("ab" * 300)
    plan = make_plan(TrainConfig(data=(str(tmp_path / "text.txt"),), backend="numpy", steps=100_000))
    slow = replace(plan, ways=tuple(replace(way, ms=51_206.0) for way in plan.ways))
    rows = {row[0]: row[1] for row in step_rows(slow)}
    assert rows["expected time"] == "51.2 s"
    assert rows["in total, 100,000 steps"] == "59 days 6 h"
    assert wrong(str(rows)) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 µs"), (2.5e-7, "0.25 µs"), (0.000999, "999 µs"), (0.00029, "290 µs"), (0.0019, "1.90 ms"),
        (0.0123, "12.3 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (9.99, "9.99 s"), (9.999, "10.0 s"),
        (51.206, "51.2 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (200, "3 min 20 s"), (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"), (7500, "2 h 5 min"), (86399, "1 day 0 h"), (86400, "1 day 0 h"),
        (300_000, "3 days 11 h"), (50_457_876, "584 days 0 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts() -> None:
    assert [counted(count, "layer") for count in (0, 1, 2, 1234)] == ["0 layers", "1 layer", "2 layers", "1,234 layers"]
