"""What commands write is UTF-8 and complete, and nothing on the command line is dropped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import tiny_config

from bevia_fast import train
from bevia_fast.commands.arguments import GenerateCommand, PlanCommand, parse
from bevia_fast.commands.main import main
from bevia_fast.config import GenerateConfig, TrainConfig
from bevia_fast.errors import UserError
from bevia_fast.runs.trained import generate

TEXT = "人人生而自由，\r在尊严和权利上一律平等。\n" * 30
PROMPT = "人人"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on a Chinese text."""
    folder = tmp_path_factory.mktemp("中文")
    (folder / "text.txt").write_bytes(TEXT.encode())
    train(tiny_config(folder, "run", steps=2))
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bevia_fast", *arguments]


def environment(**changes: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}, **changes}


GENERATE = ["generate", "run", "--prompt", PROMPT, "--length", "200", "--temperature", "2", "--backend", "numpy"]


# ----------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
     {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}],
    ids=str,
)  # fmt: skip
def test_redirected_output_is_utf8(folder: Path, variables: dict[str, str]) -> None:
    """In any locale, and to the last byte."""
    wanted = generate(folder / "run", PROMPT, length=200, temperature=2.0, backend="numpy")
    script = f"from bevia_fast.commands.main import main; raise SystemExit(main({GENERATE!a}))"  # in ASCII
    with (folder / "o.txt").open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, stdout=file, stderr=subprocess.PIPE,
            env=environment(**variables), check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "o.txt").read_bytes() == wanted.encode() + b"\n"
    assert len(set(wanted)) > 10


def test_errors_are_utf8_too(folder: Path) -> None:
    done = subprocess.run(
        command("train", "--data", "没有.txt"), cwd=folder, capture_output=True, check=False,
        env=environment(PYTHONIOENCODING="cp1252", PYTHONUTF8="1"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Cannot read 没有.txt: No such file" in done.stderr.decode()


def test_a_name_that_is_not_utf8_is_shown(folder: Path) -> None:
    done = subprocess.run(
        [*command("train", "--data"), b"caf\xe9.txt"], cwd=folder, capture_output=True, check=False,
        env=environment(PYTHONUTF8="1"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Cannot read caf\\udce9.txt: No such file" in done.stderr.decode()


def test_a_terminal_that_lacks_a_character_does_not_stop_us(folder: Path) -> None:
    leader, follower = pytest.importorskip("pty").openpty()
    with subprocess.Popen(
        command(*GENERATE), cwd=folder, stdout=follower, stderr=subprocess.PIPE,
        env=environment(PYTHONIOENCODING="latin-1", PYTHONUTF8="1"),
    ) as process:  # fmt: skip
        os.close(follower)
        shown = b""
        try:
            while block := os.read(leader, 1000):
                shown += block
        except OSError:  # Linux reports the end so
            pass
        assert process.stderr is not None
        assert (process.wait(), process.stderr.read()) == (0, b"")
    os.close(leader)
    assert shown.startswith(b"??")


# --------------------------------------------------------------------------------------------------------------- --out


def test_out_writes_what_would_be_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main([*GENERATE, "--out", "-"]) == 0
    printed = capsys.readouterr().out
    assert main([*GENERATE, "--out", "文.txt"]) == 0
    assert capsys.readouterr().out == "Saved in 文.txt.\n"
    assert Path("文.txt").read_bytes() == printed.encode()
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize(
    ("out", "message"),
    [("nowhere/o.txt", "there is no folder nowhere"), ("run", "it is a folder"), ("", "--out needs the name")],
)
def test_an_out_that_cannot_be_written_is_refused_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    assert main([*GENERATE, "--out", out]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_an_interrupted_out_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> object:
        yield "a"
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    Path("old.txt").write_text("old")
    monkeypatch.setattr("bevia_fast.commands.generate.stream", interrupted)
    assert main([*GENERATE, "--out", "old.txt"]) == 130
    assert Path("old.txt").read_text() == "old"


def test_out_is_an_option_of_the_command_only() -> None:
    assert parse(["generate", "runs/1"]) == GenerateCommand(run="runs/1")
    assert not hasattr(GenerateConfig(run=""), "out")  # in Python, the text is returned


# ------------------------------------------------------------------------------------------------------------- repeats


def test_a_value_that_looks_like_an_option_is_not_given_twice() -> None:
    assert parse(["generate", "runs/1", "--prompt=--data"]).prompt == "--data"
    config = parse(["train", "--data=a", "--steps", "5", "--data=b", "c", "--ctx", "8"])
    assert (config.data, config.steps, config.model.ctx) == (("a", "b", "c"), 5, 8)


@pytest.mark.parametrize(
    "line",
    ["train --steps 5 --steps 6", "train --steps=5 --ctx 8 --steps 5", "train --eval-every 5 --eval_every 6",
     "train --tie --no-tie", "train --no_tie --tie", "generate r --out a --out b"],
)  # fmt: skip
def test_other_options_are_not_given_twice(line: str) -> None:
    with pytest.raises(UserError, match=r"^--[a-z-]+ is given twice; give it once\.$"):
        parse(line.split())


def test_all_data_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(["train", "--data", "a", "--data", "b", "--glob", "*.md", "--glob", "*.rst"])
    assert isinstance(config, TrainConfig)
    assert (config.data, config.glob) == (("a", "b"), ("*.md", "*.rst"))
    plan = parse(["plan", "--data", "a", "--data", "b"])
    assert isinstance(plan, PlanCommand)
    assert plan.config.data == ("a", "b")
    for option in ("--data", "--glob"):
        with pytest.raises(UserError, match=f"{option} names no"):
            parse(["train", option])
