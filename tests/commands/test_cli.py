"""The commands, as a user calls them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.commands.arguments import COMMANDS, GenerateCommand, options, parse
from bevia_fast.commands.groups import NOT_PLANNED
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.errors import ConfigError
from bevia_fast.naming import flag

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 40
SIZES = ["--ctx", "16", "--dim", "16", "--layers", "2", "--heads", "2", "--batch", "3"]


def bevia(*arguments: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bevia_fast", *arguments], cwd=folder, input=stdin, capture_output=True, text=True,
        encoding="utf-8", timeout=300, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text.txt and a run in it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    done = bevia("train", "--data", "text.txt", *SIZES, "--steps", "20", "--backend", "numpy", "--out", "run",
                 "--eval-every", "10", "--sample-every", "10", folder=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "output.txt").write_text(done.stdout)
    return folder


# ------------------------------------------------------------------------------------------------------ what they do


def test_train_writes_a_run_and_says_so_line_by_line(trained: Path) -> None:
    output = (trained / "output.txt").read_text()
    assert {path.name for path in (trained / "run").iterdir()} >= {
        "options.json", "metrics.jsonl", "model.safetensors", "loss.png", "sample.txt",
    }  # fmt: skip
    assert "\x1b" not in output  # no colors and no moving cursor where nobody watches
    steps = [int(line.split()[1]) for line in output.splitlines() if line.startswith("step ")]
    assert steps == [0, *range(2, 21, 2)]
    assert output.count("sample before the first step") + output.count("sample after step ") == 3
    assert "2,080 characters, 16 distinct" in output
    assert "bevia-fast generate run" in output


def test_train_with_numba_from_standard_input(tmp_path: Path, trained: Path) -> None:
    done = bevia("train", "--data", "-", *SIZES, "--steps", "20", "--crosscheck-every", "20", "--eval-every", "20",
                 folder=tmp_path, stdin=TEXT)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cross-check: largest relative difference" in done.stdout
    assert "numba" in done.stdout
    losses = []
    for folder in (tmp_path / "runs" / "1", trained / "run"):
        losses.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # the other backend's, from the same seed


def test_train_with_the_workqueue_threading_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, kernels are wrapped in other objects, which the memory estimate must recognize too."""
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "workqueue")
    done = bevia("train", "--data", "-", *SIZES, "--steps", "2", "--sample-every", "0", folder=tmp_path, stdin=TEXT)
    assert done.returncode == 0, done.stderr
    assert "(workqueue)" in done.stdout


def test_generate(trained: Path) -> None:
    arguments = ["generate", "run", "--backend", "numpy", "--length", "50"]  # three times the context
    texts = []
    for drawing in ([], ["--seed", "2"], ["--temperature", "0"], ["--temperature", "0", "--top-k", "3"]):
        done = bevia(*arguments, "--prompt", "the ", *drawing, folder=trained)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("the ")
        assert len(done.stdout) == 4 + 50 + 1
        texts.append(done.stdout)
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]


def test_attention(trained: Path) -> None:
    done = bevia("attention", "run", "--prompt", "the cat\nsat", "--out", "maps.png", folder=trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "maps.png").read_bytes().startswith(b"\x89PNG")
    for prompt in ("", "the cat sat on th", "x"):
        done = bevia("attention", "run", "--prompt", prompt, folder=trained)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
    assert not (trained / "run" / "attention.png").exists()


def test_parameters(trained: Path) -> None:
    done = bevia("parameters", "run", folder=trained)
    assert done.returncode == 0, done.stderr
    assert "h.1.mlp.c_proj.weight" in done.stdout
    done = bevia("parameters", "--layers", "1", "--dim", "32", "--vocab-size", "10", "--no-bias", folder=trained)
    assert "\nwte.weight " in done.stdout
    assert "10 x 32" in done.stdout
    assert ".bias" not in done.stdout


def test_check_quick(tmp_path: Path) -> None:
    done = bevia("check", "--quick", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attention_backward" in done.stdout
    assert "float64" in done.stdout
    assert "checks passed" in done.stdout


def test_help_is_complete(tmp_path: Path) -> None:
    began = time.perf_counter()
    done = bevia("--help", folder=tmp_path)
    print(f"help after {time.perf_counter() - began:.2f} s")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout
    assert bevia(folder=tmp_path).stdout == done.stdout
    done = bevia("train", "--preset", "baby", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "default: 384" in " ".join(done.stdout.split())
    assert "--vocab" not in done.stdout  # it follows from the text


@pytest.mark.parametrize(("line", "most"), [(["--help"], 250), (["train", "--help"], 400)])
def test_help_is_quick(line: list[str], most: int) -> None:
    """It imports only the options and the help formatter; imports dominate its run time."""
    code = (
        "import json, sys\nfrom bevia_fast.commands.main import main\n"
        f"code = main({line})\n"
        "print(); print(json.dumps([code, sorted(sys.modules)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    status, modules = json.loads(done.stdout.splitlines()[-1])
    print(f"{len(modules)} modules")
    assert status == 0
    own = {name.partition(".")[2] for name in modules if name.partition(".")[0] == "bevia_fast"}
    modules = {"arguments", "fields", "groups", "hints", "lengths", "lists", "main", "parsing", "words"}
    light = {"", "commands", "config", "describing", "errors", "files", "naming", "recipes", "shell", "stages"}
    assert own == {*light, *(f"commands.{name}" for name in modules)}
    assert not {"numpy", "numba", "llvmlite", "matplotlib", "rich"} & set(modules)
    assert len(modules) < most  # 166 and 284, of Python and tyro


# ------------------------------------------------------------------------------------------------------- parsing alone


def test_options_reach_the_configuration() -> None:
    line = "train --data a b --preset tiny --steps 5 --heads 2 --no-tie --min-lr 1e-5"
    config = parse(line.split())
    assert config == TrainConfig(
        data=("a", "b"), steps=5, batch=8, min_lr=1e-5,
        model=ModelConfig(dim=64, layers=1, heads=2, tie=False),
    )  # fmt: skip
    assert parse(["train", "--steps", "5", "--preset=baby"]).model.dim == 384
    for line in ("train --out long", "train --data seed", "train --preset laptop --out baby"):  # names of presets too
        assert parse(line.split()).model == ModelConfig()
    assert parse(["generate", "runs/1", "--prompt=--x", "--top-p", "0.5"]) == GenerateCommand(
        "runs/1", prompt="--x", top_p=0.5
    )
    assert parse(["train"]) == TrainConfig()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trian", "did you mean train?"),
        ("train --stepz 5", "no option '--stepz' (did you mean --steps?)"),
        ("train --preset huge", "huge"),
        ("train --steps many", "many"),
        ("train --steps 2.5", "2.5"),
        ("train --steps", "--steps"),
        ("train --data", "--data names no file"),
        ("train --vocab-size 3", "no option '--vocab-size'"),
        ("check extra", "Unexpected argument 'extra'"),
        ("train --dim 10 --heads 3", "--dim 10 is not divisible by --heads 3"),
        ("train --layers -1", "--layers is -1"),
        ("train --ctx 0", "--ctx is 0"),
        ("train --batch 99999999999", "--batch is 99,999,999,999"),
        ("train --lr nan", "--lr is nan"),
        ("train --activation tanh", "tanh"),
        ("generate", "RUN"),
        ("generate run --temperature -1", "--temperature is -1.0"),
        ("attention run", "--prompt"),
        ("check --slow", "no option '--slow'"),
        ("parameters --vocab-size 0", "--vocab-size is 0"),
        ("parameters runs/1 --dim 64", "runs/1 has its own sizes"),
        ("parameters runs/1 --vocab-size 64", "runs/1 has its own sizes"),
    ],
)
def test_bad_arguments_are_one_sentence(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bevia-fast: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_each_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        page = capsys.readouterr().out
        hidden = {flag(name) for name in NOT_PLANNED} if command == "plan" else set()
        unnamed = {"--run", "--runs", "--folder", "--shell", "--experiment", "--source"}
        for option in options(COMMANDS[command]) - unnamed:
            assert (f"{option} " in page or f"{option}," in page) == (option not in hidden), option
        assert "(default: )" not in page
        assert "none)" not in page
        assert "False)" not in page


# ----------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Cannot read bad.txt: No such file or directory."),
        (b"", "bad.txt is empty."),
        (b"good\xff", "bad.txt is not UTF-8: byte 4 is 0xff"),
        (b"\x7fELF\x00", "bad.txt is not text: byte 4 is 0"),
        (b"far too short for it", "and --ctx 16 needs at least 17."),
    ],
)
def test_bad_texts(
    content: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    before = list(tmp_path.iterdir())
    assert main(["train", "--data", "bad.txt", "--backend", "numpy", *SIZES]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err
    assert list(tmp_path.iterdir()) == before


def test_impossible_requests_are_one_sentence(trained: Path) -> None:
    """Run in a subprocess, where an uncaught exception would print a traceback."""
    (trained / "foreign").write_text("no model")
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    for line, words in (
        ("train --data text.txt --backend numpy --out run", "run already contains a run"),
        ("train --data text.txt --ctx 8 --dim 65536 --layers 4000", "Training this model needs about"),
        ("generate run --backend numpy --prompt Größe", "'ö' (character 3) and 'ß' (character 4)"),
        ("generate nowhere", "There is no run nowhere."),
        ("generate foreign", "not a complete safetensors file"),
        ("parameters foreign", "not a complete safetensors file"),
    ):
        done = bevia(*line.split(), folder=trained)
        assert done.returncode == 2, line
        assert done.stdout == ""
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: object) -> int:
        raise MemoryError("Unable to allocate 8 EiB")

    monkeypatch.setattr("bevia_fast.commands.main.run", fail)
    assert main(["train"]) == 2
    assert capsys.readouterr().err == (
        "bevia-fast: error: There is not enough memory (Unable to allocate 8 EiB).\n"
    )


def test_an_operating_system_error_is_one_sentence_with_the_file_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ((errno.EIO, "Input/output error"), "Input/output error."),
        ((errno.EACCES, "Permission denied", "a.txt"), "a.txt: Permission denied."),
    ):
        def fail(config: object, arguments: Any = arguments) -> int:
            raise OSError(*arguments)

        monkeypatch.setattr("bevia_fast.commands.main.run", fail)
        assert main(["train"]) == 1
        assert capsys.readouterr().err == f"bevia-fast: error: {message}\n"


def test_a_refused_thread_count(trained: Path) -> None:
    done = bevia("generate", "run", "--threads", "4000", folder=trained)
    assert done.returncode == 2
    assert "--threads 4000" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_saves_and_ends_with_130(trained: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bevia_fast", "train", "--data", "text.txt", *SIZES, "--steps", "1000000", "--backend",
         "numpy", "--out", "stopped", "--eval-every", "1000000", "--sample-every", "0"],
        cwd=trained, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = trained / "stopped" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and metrics.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert "Interrupted; saved in stopped" in out
    assert {path.name for path in (trained / "stopped").iterdir()} >= {"model.safetensors", "loss.png", "sample.txt"}
    done = bevia("generate", "stopped", "--backend", "numpy", "--length", "5", folder=trained)
    assert done.returncode == 0


def test_a_reader_that_closes_the_pipe(trained: Path) -> None:
    for command in (["generate", "run", "--length", "100000"], ["train", "--data", "text.txt", *SIZES]):
        process = subprocess.Popen(
            [sys.executable, "-m", "bevia_fast", *command, "--backend", "numpy"], cwd=trained,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""
        process.stderr.close()


def test_ctrl_c_elsewhere_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("bevia_fast.commands.main.run", interrupted)
    assert main(["check"]) == 130
    assert capsys.readouterr().err == ""


def test_tyro_does_not_reword_config_errors() -> None:
    with pytest.raises(ConfigError, match=r"^--heads is 0; it must be from 1 to 4,096\.$"):
        parse(["parameters", "--heads", "0"])
