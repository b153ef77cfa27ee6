"""A file named - is standard output or input, and then carries nothing else."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.commands.main import main
from bevia_fast.commands.tables import FittedConsole, draw
from bevia_fast.files import MODEL

TURNS = ["--seconds", "0.01", "--threads", "1", "--backend", "numpy"]
SMALL = ["--ctx", "8", "--dim", "16", "--layers", "1", "--heads", "2", "--batch", "2", *TURNS]
KERNEL = ["profile", "gelu_forward", "--ctx", "8", "--dim", "8", *TURNS]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "t.txt").write_text("to be or not to be\n" * 20)
    train(TrainConfig(
        data=[str(folder / "t.txt")], out=str(folder / "run"), model=ModelConfig(ctx=8, dim=8, layers=2, heads=2),
        steps=1, batch=2, eval_batches=1, sample_every=0, backend="numpy",
    ))  # fmt: skip
    return folder / "run"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    kernels = ["bench", "kernels", "--only", "gelu_forward", "--ctx", "8", *TURNS, "--turns", "1"]
    for line in (["bench", "step", *SMALL, "--turns", "1"], KERNEL, kernels, ["profile", "step", *SMALL]):
        assert main([*line, "--json", "-"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)
        assert "numpy" in err
    assert not Path("-").exists()


def test_csv_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", *SMALL, "--turns", "1", "--csv", "-"]) == 0
    out, err = capsys.readouterr()
    assert [row["backend"] for row in csv.DictReader(io.StringIO(out))] == ["numpy"]
    assert "A training step" in err


def test_a_trace_and_a_plan_on_standard_output(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "step", *SMALL, "--trace", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["traceEvents"]
    assert "The trace: open it at" in err
    assert main(["plan", "--data", str(run.parent / "t.txt"), "--ctx", "8", "--backend", "numpy", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_results_are_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "step", *SMALL, "--turns", "1", "--json", "a.json"]) == 0
    typed(monkeypatch, Path("a.json").read_bytes())
    assert main(["bench", "compare", "-", "a.json"]) == 0
    assert "1.00" in capsys.readouterr().out
    assert main(["bench", "compare", "-", "-"]) == 2


def test_pictures_on_standard_output_are_png(run: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    lines: list[list[str]] = [
        ["attention", str(run), "--prompt", "to be"], KERNEL,
        ["bench", "scaling", *SMALL, "--turns", "1", "--values", "4", "8"],
        ["bench", "contexts", "--values", "8", "--dim", "8", "--layers", "1", *TURNS],
    ]  # fmt: skip
    for line in lines:
        assert main([*line, "--out", "-"]) == 0
        assert capsysbinary.readouterr().out.startswith(PNG), line


def test_two_files_cannot_both_be_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["bench", "step", "--json", "-", "--csv", "-"], ["profile", "step", "--json", "-", "--trace", "-"],
                 ["profile", "gelu", "--json", "-", "--out", "-"],
                 ["bench", "scaling", "--csv", "-", "--out", "-"]):  # fmt: skip
        assert main(line) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Only one file can be -" in err


@pytest.mark.parametrize(("data", "prompt"), [(b"to be", "to be"), (b"to be\r\n", "to be"), (b"to\n\n", "to\n")])
def test_a_prompt_is_read_from_standard_input(
    data: bytes, prompt: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, data)
    assert main(["generate", str(run), "--prompt", "-", "--length", "3", "--backend", "numpy"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(prompt)
    assert len(out) == len(prompt) + 3 + 1
    typed(monkeypatch, data)
    assert main(["attention", str(run), "--prompt", "-", "--out", "a.svg"]) == 0
    assert Path("a.svg").read_bytes().startswith(b"<?xml")


def test_a_prompt_that_cannot_be_read(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"to \xff")
    assert main(["generate", str(run), "--prompt", "-"]) == 2
    assert "The prompt on standard input is not UTF-8: byte 3 is 0xff." in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["attention", str(run), "--prompt", "-"]) == 2
    assert "it is closed" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", ".png", "a.jpeg"])
def test_other_formats_are_refused_before_anything_is_done(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("bevia_fast.measuring.kernel_times.measure", never)
    monkeypatch.setattr("bevia_fast.measuring.step_times.bench_scaling", never)
    monkeypatch.setattr("bevia_fast.measuring.context_growth.bench_contexts", never)
    for line in (["attention", str(run), "--prompt", "to"], ["profile", "gelu"], ["bench", "scaling"],
                 ["bench", "contexts"]):  # fmt: skip
        assert main([*line, "--out", name]) == 2
        err = capsys.readouterr().err
        assert "pictures are written as .png, .svg or .pdf." in err
        assert err.count("\n") == 1


def test_the_format_follows_from_the_ending(run: Path) -> None:
    for name, start in (("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("a.png", PNG)):
        assert main(["attention", str(run), "--prompt", "to", "--out", name, "--layer", "1", "--head", "0", "1"]) == 0
        assert Path(name).read_bytes().startswith(start)


def test_pictures_without_a_name_go_into_the_folder_of_the_run(run: Path) -> None:
    """And those of no run into the folder of all runs; the current folder stays as it is."""
    assert main(["attention", str(run), "--prompt", "to"]) == 0
    assert main(["bench", "scaling", str(run / MODEL), *SMALL, "--turns", "1", "--values", "4", "8"]) == 0
    for name in ("attention.png", "scaling.png"):
        assert (run / name).read_bytes().startswith(PNG)
    assert not list(Path().iterdir())
    assert main(KERNEL) == 0
    assert main(["bench", "contexts", "--values", "8", "--dim", "8", "--layers", "1", *TURNS]) == 0
    assert sorted(map(str, Path().rglob("*"))) == ["runs", "runs/contexts.png", "runs/roofline.png"]


def test_a_layer_that_does_not_exist(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attention", str(run), "--prompt", "to", "--layer", "2"]) == 2
    assert "There is no layer 2; the model has layers 0 to 1." in capsys.readouterr().err


def test_a_picture_that_fails_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Any:
        raise RuntimeError("no\n  fonts.")

    draw(FittedConsole(), "a.png", fail)
    Path("file").write_text("")
    draw(FittedConsole(), "file/a.png", Figure)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "note: a.png cannot be drawn: no fonts."
    assert out[1].startswith("note: file/a.png cannot be written: ")
    assert not Path("a.png").exists()
