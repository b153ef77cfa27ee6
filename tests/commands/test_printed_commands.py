"""Every command that the program prints runs as printed, whatever the names of files contain."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevia_fast.commands.arguments import COMMANDS, parse
from bevia_fast.commands.main import main
from bevia_fast.errors import UserError
from bevia_fast.shell import shell_line, shell_path

TEXT = "Größe? 'Yes', she \"said\" $HOME `ls` \\ 言葉.\n" * 30
SIZES = ["--ctx", "8", "--dim", "8", "--layers", "1", "--heads", "1", "--batch", "2", "--eval-batches", "1",
         "--sample-every", "0", "--backend", "numpy"]  # fmt: skip
NAMES = [
    "run", "my run", "it's", 'a "run"', "größe", "言葉", "-run", "--out", "$HOME", "`ls`", "a;b", "a&b", "*", "~",
    "a\\b", "#1", "!!", "(x)", "a=b", "a.b", "new\nline", "tab\there", "\x1b[2J", "mix '\n\" $x", "\udce9", "🙂",
]  # fmt: skip

posix = pytest.mark.skipif(os.name != "posix", reason="the names of files and the shell are POSIX's")


def printed(text: str) -> list[str]:
    """Every command line in what the program prints."""
    found = re.findall(r"bevia-fast (?!: )[^\n]*", text)
    return [line.rstrip(".") for line in found if not line.startswith("bevia-fast: ")]


def in_a_shell(line: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line in bash, where `bevia-fast` is this program."""
    function = f'bevia-fast() {{ {shlex.quote(sys.executable)} -m bevia_fast "$@"; }}'
    return subprocess.run(
        ["bash", "-c", f"{function}\n{line}"], cwd=folder, input=stdin, capture_output=True, timeout=300, check=False,
        encoding="utf-8", errors="surrogateescape", env={**os.environ, "PYTHONIOENCODING": "utf-8:surrogateescape"},
    )  # fmt: skip


@posix
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_shell_reads_back_every_name(name: str) -> None:
    line = shell_line("printf", "%s\\0", shell_path(name), name)
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert [os.fsdecode(part) for part in done.stdout.split(b"\0")[:-1]] == [shell_path(name), name]
    assert os.path.normpath(shell_path(name)) == os.path.normpath(name)


@posix
@pytest.mark.parametrize("name", ["my run", "it's", "-run", "--out", "größe 言葉", "new\nline", "a 'b\" $c"], ids=ascii)
def test_a_runs_commands_run_as_printed(name: str, tmp_path: Path) -> None:
    """At the end of training, of an interrupted run, and where the folder is taken."""
    text = tmp_path / "my 'text'.txt"
    text.write_text(TEXT, "utf-8")
    train = shell_line("bevia-fast", "train", text.name, *SIZES, "--steps", "4", f"--out={name}")
    first = in_a_shell(train, tmp_path)
    assert first.returncode == 0, first.stderr
    (ending,) = printed(first.stdout)
    wrote = in_a_shell(f"{ending} --length 5 --backend numpy", tmp_path)
    assert (wrote.returncode, wrote.stderr) == (0, "")
    assert len(wrote.stdout) >= 5
    taken = in_a_shell(train, tmp_path)
    assert taken.returncode == 2
    (resuming,) = printed(taken.stderr.replace("bevia-fast: error: ", ""))
    again = in_a_shell(f"{resuming} --steps 6", tmp_path)
    assert again.returncode == 0, again.stderr
    assert "after step 4 of 6" in again.stdout


@posix
@pytest.mark.parametrize("source", ["text.txt", "-"])
def test_an_interrupted_runs_command_runs_as_printed(source: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "bevia_fast", "train", source, *SIZES, "--steps", "1000000", "--out=-my run"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(TEXT)
    process.stdin.close()
    process.stdin = None
    metrics = tmp_path / "-my run" / "metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and metrics.read_bytes().count(b"\n") > 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert ("with the same text on standard input" in out) == (source == "-")
    (line,) = printed(out)
    steps = 2 + len(metrics.read_bytes().splitlines())
    done = in_a_shell(f"{line} --steps {steps}", tmp_path, TEXT if source == "-" else "")
    assert done.returncode == 0, done.stderr


@posix
def test_a_stopped_runs_command_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    train = shell_line("bevia-fast", "train", "text.txt", *SIZES, "--steps", "60", "--lr", "1e30", "--min-lr", "1e30",
                       "--warmup", "0", "--grad-clip", "0", "--out", "it's over")  # fmt: skip
    stopped = in_a_shell(train, tmp_path)
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    line = printed(stopped.stderr.partition("To see the error again: ")[2])[0]
    again = in_a_shell(line, tmp_path)
    assert again.returncode == 1
    assert "Stopped at step" in again.stderr


def test_commands_in_error_messages_can_be_followed(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that refuse a line by naming another one, such as a page of help."""
    lines = [
        [], ["x"], ["-x"], ["train", "--prompt", "x"], ["train", "--epochs"], ["train", "--model", "x"],
        ["generate", "r", "--steps"], ["bench", "compare"], ["profile", "--x"], ["bench", "step", "--x"],
        *([name, "--zebra"] for name in COMMANDS), *([name, "a", "b", "c"] for name in COMMANDS),
    ]  # fmt: skip
    count = 0
    for line in lines:
        try:
            parse(line)
        except UserError as error:
            message = str(error)
        except SystemExit:
            capsys.readouterr()
            continue
        for command in printed(message):
            if " --help" in command:
                assert main([*command.split(" --help")[0].split()[1:], "--help"]) == 0, command
                capsys.readouterr()
                count += 1
            else:
                words = re.split(r"[ ,;]", command)
                assert words[1] in COMMANDS, command
    assert count > 8
