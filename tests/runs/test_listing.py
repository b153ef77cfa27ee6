"""The list of runs, and the curves of several in one picture."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import Acting, tiny_config

from bevia_fast import train
from bevia_fast.commands.main import main
from bevia_fast.comparing import COLORS, Curve, draw_runs, in_short
from bevia_fast.config import PlotConfig, TrainConfig
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.runs.checkpoint import load_checkpoint, newest_good, resume
from bevia_fast.runs.folder import read_metrics
from bevia_fast.runs.listing import Curves, list_runs

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs 2, 10 and wide, whose second one is interrupted, and with folders that hold no run."""
    place = tmp_path_factory.mktemp("listing")
    runs = place / "runs"
    config = tiny_config(place)
    train(replace(config, out=str(runs / "2"), lr=1e-2, steps=12))
    train(replace(config, out=str(runs / "10")), Acting(5, lambda: signal.raise_signal(signal.SIGINT)))
    train(replace(config, out=str(runs / "wide"), model=replace(config.model, dim=16), accumulate=2, steps=8))
    (runs / "empty").mkdir()
    (runs / ".hidden").mkdir()
    (runs / "losses.png").write_text("")
    shutil.copytree(runs / "2", runs / "hurt")
    (runs / "hurt/metrics.jsonl").write_text('{"step": "x"}\n')
    shutil.copytree(runs / "2", runs / "bare")
    (runs / "bare/options.json").unlink()
    for number, name in enumerate(("wide", "10", "2")):
        os.utime(runs / name / "metrics.jsonl", (1e9 + 86400 * number,) * 2)
    return runs


def names(folder: Path, sort: Any = "name") -> list[str]:
    return [one.name for one in list_runs(folder, sort)]


def test_names_are_in_natural_order_and_broken_folders_come_last(folder: Path) -> None:
    assert names(folder) == ["2", "10", "wide", "bare", "empty", "hurt"]
    problems = {one.name: one.problem for one in list_runs(folder) if one.curves is None}
    assert "options.json" in problems["bare"]
    assert "not a run" in problems["empty"]
    assert "metrics.jsonl" in problems["hurt"]


@pytest.mark.parametrize(("sort", "first"), [
    ("parameters", ["wide", "2", "10"]), ("steps", ["2", "wide", "10"]), ("date", ["2", "10", "wide"]),
])  # fmt: skip
def test_order(folder: Path, sort: str, first: list[str]) -> None:
    assert names(folder, sort)[:3] == first


def test_order_of_losses_and_minutes(folder: Path) -> None:
    runs = [one for one in list_runs(folder, "loss") if one.curves]
    losses = [one.curves.best()[0] for one in runs]  # type: ignore[union-attr, index]
    assert losses == sorted(losses)
    minutes = [one.minutes for one in list_runs(folder, "minutes") if one.curves]
    assert minutes == sorted(minutes, reverse=True)
    assert minutes[-1] > 0


def test_what_is_said_of_a_run(folder: Path) -> None:
    two, ten, wide, *_ = (one.about() for one in list_runs(folder))
    records = read_metrics(folder / "2")
    best = min(record["val_loss"] for record in records if record["val_loss"] is not None)
    assert two["best_loss"] == best
    assert [record["val_loss"] for record in records if record["step"] == two["best_step"]] == [best]
    assert (ten["steps"], ten["planned_steps"]) == (5, 10)
    assert two["date"].startswith("2001-09-1")
    assert (wide["dim"], wide["batch"], wide["steps"]) == (16, 2, 8)
    # a step of `wide` is 2 batches of 2 x 8 tokens
    seconds = sum(32 / record["tokens_per_s"] for record in read_metrics(folder / "wide")[1:])
    assert wide["minutes"] == pytest.approx(seconds / 60)


def test_where_the_records_are_on_each_axis(folder: Path) -> None:
    curves = Curves.read(folder / "wide")
    assert curves.over("steps") == list(range(9))
    assert curves.over("tokens") == [32 * step for step in range(9)]
    minutes = curves.over("minutes")
    assert minutes[0] == 0 < minutes[1] < minutes[-1]


def test_a_run_before_its_first_evaluation_and_steps_without_a_speed(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "2", tmp_path / "run"))
    (run / "metrics.jsonl").write_text("")
    [one] = list_runs(run)
    assert (one.steps, one.minutes, one.about()["best_loss"], one.about()["best_step"]) == (0, 0.0, None, None)
    (run / "metrics.jsonl").write_text('{"step": 1, "tokens_per_s": 16}\n{"step": 2}\n{"step": 3, "tokens_per_s": 0}\n')
    assert Curves.read(run).minutes() == [1 / 60] * 3  # 2 x 8 tokens
    assert names(tmp_path, "loss") == ["run"]


def test_a_part_of_a_run_leads_to_the_run(folder: Path) -> None:
    assert Curves.read(folder / "2/model.safetensors").folder == folder / "2"
    with pytest.raises(CheckpointError, match="is not a run"):
        Curves.read(folder / "losses.png")
    with pytest.raises(CheckpointError, match="There is no run"):
        Curves.read(folder / "nothing")


def test_the_command_lists(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(folder), "--sort", "parameters", "--json", str(tmp_path / "runs.json")]) == 0
    out = capsys.readouterr().out
    assert "3 runs" in out
    assert "5 of 10" in out
    assert out.index("wide") < out.index("2001")
    assert "empty cannot be listed: " in out
    found = json.loads((tmp_path / "runs.json").read_text())
    assert [one["run"] for one in found] == names(folder, "parameters")
    assert found[-1].keys() == {"run", "problem"}
    assert main(["runs", str(folder), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["run"] == "2"
    assert main(["runs", str(tmp_path)]) == 0
    assert "There are no runs in" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [
    (["runs", "nothing"], "There is no folder nothing."),
    (["runs", "runs/losses.png"], "but a file of this name"),
    (["runs", "runs", "--sort", "size"], "must be one of name"),
    (["runs", "runs", "--json", "no/file"], "there is no folder no"),
    (["plot"], "plot needs"),
    (["plot", "runs/2", "runs/../runs/2"], "is named twice"),
    (["plot", "runs/2", "--out", "x.gif"], "ends in .gif"),
    (["plot", "runs/2", "--x", "days"], "must be one of steps"),
    (["plot", "runs/2", "runs/empty"], "is not a run"),
    (["plot", "runs/hurt"], "metrics.jsonl"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder.parent)
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_the_command_draws(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "losses.png").unlink()
    assert main(["plot", "runs/2", "runs/wide", "--x", "tokens"]) == 0
    assert capsys.readouterr().out.split() == ["runs/losses.png"]
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "runs/2"]) == 0
    assert capsys.readouterr().out.split() == ["runs/2/losses.png"]
    for name, start in (("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        assert main(["plot", "runs/2", "--x", "minutes", "--out", name]) == 0
        assert (folder.parent / name).read_bytes().startswith(start)
    (folder / "2/losses.png").unlink()


def test_a_run_without_losses_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(folder / "2", tmp_path / "run"))
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    assert main(["plot", str(run)]) == 2
    assert "has no losses yet" in capsys.readouterr().err


def curve(name: str, count: int = 3) -> Curve:
    training = [None, *(3.0 - 0.01 * index for index in range(count - 1))]
    return Curve(name, list(range(count)), training, [4.0, *[None] * (count - 2), 2.5])


def test_the_picture_has_each_run_once_in_its_legend() -> None:
    figure = draw_runs([curve("a"), curve("$b$"), Curve("c", [0, 1], [3.0, 2.0], [None, None])], "tokens")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a: 2.500 at the end", "$b$: 2.500 at the end", "c"]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    [axes] = figure.axes
    assert axes.get_title().startswith("Losses of a, $b$, c\n")
    assert axes.get_xlabel() == "tokens trained on"
    lines = axes.get_lines()
    assert [line.get_color() for line in lines] == [COLORS[0]] * 2 + [COLORS[1]] * 2 + [COLORS[2]]
    assert lines[0].get_xydata().tolist() == [[0, 4.0], [2, 2.5]]
    assert lines[1].get_xydata().tolist() == [[1, 3.0], [2, 2.99]]


def test_the_legend_covers_no_point() -> None:
    figure = draw_runs([curve(str(number)) for number in range(9)], "steps")
    figure.draw_without_rendering()
    [legend], [axes] = figure.legends, figure.axes
    assert legend.get_window_extent().y1 <= axes.get_window_extent().y0
    assert "and 5 other runs" in axes.get_title()
    styles = [line.get_linestyle() for line in axes.get_lines()[::2]]
    assert styles[:7] == ["-"] * 7
    assert styles[7:] == ["--"] * 2  # the colors begin again


@pytest.mark.parametrize(("count", "smooth"), [(101, False), (102, True)])
def test_many_losses_are_smoothed(count: int, smooth: bool) -> None:
    jagged = [None, *(3.0 + index % 2 for index in range(count - 1))]
    figure = draw_runs([Curve("a", list(range(count)), jagged, [None] * count)], "steps")
    [line] = figure.axes[0].get_lines()
    assert (max(line.get_ydata()) < 3.9) == smooth
    assert ("smoothed" in figure.axes[0].get_title()) == smooth


@pytest.mark.parametrize(("value", "label"), [
    (0, "0"), (999, "999"), (1000, "1k"), (999_999, "1000k"), (1_500_000, "1.5M"), (2e9, "2G"), (-2000, "-2k"),
])  # fmt: skip
def test_tokens_on_the_axis(value: float, label: str) -> None:
    assert in_short(value) == label


def test_options_from_python() -> None:
    assert PlotConfig([Path("a"), "b"]).runs == ("a", "b")  # type: ignore[list-item]


# --------------------------------------------------------------------------------------------------------------- names


def named(folder: Path, name: str) -> TrainConfig:
    return replace(tiny_config(folder), out="", name=name)


def test_a_name_makes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = named(tmp_path, "poems")
    run = train(config)
    assert run.folder == Path("runs/poems")
    assert load_checkpoint(newest_good(run.folder)[0].path).config.name == "poems"
    assert run.config.name == "poems"
    (tmp_path / "moved").symlink_to("runs/poems")
    assert train(resume("moved", steps=12)).folder == Path("moved")  # the name says where a run begins, not where it is
    with pytest.raises(CheckpointError, match="already contains a run"):
        train(config)


@pytest.mark.parametrize("name", ["a", "two words", "größe", "a.b", "x" * 200, "1"])
def test_names_that_folders_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / named(tmp_path, name).name).mkdir()


@pytest.mark.parametrize("name", [
    "a/b", "a\\b", "..", ".hidden", "-x", " x", "x ", "x.", "a\nb", "a:b", "a*", "x" * 201, "ä" * 101, "a\0",
])  # fmt: skip
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        named(tmp_path, name)


@pytest.mark.parametrize("other", ["out", "resume"])
def test_a_name_and_a_folder_are_one_too_many(tmp_path: Path, other: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be combined with {other}"):
        replace(named(tmp_path, "a"), **{other: "b"})


def test_another_run_does_not_take_the_name_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(named(tmp_path, "poems"))
    assert main(["train", "--config", "runs/poems", "--steps", "3"]) == 0
    assert (tmp_path / "runs/1/model.safetensors").exists()
