"""Standard streams that are closed, full or gone, and an environment that is broken: a sentence at most."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import tiny_config

from bevia_fast import train
from bevia_fast.commands.console import Steadfast
from bevia_fast.data.tokenfile import cache_folder
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import places
from bevia_fast.runs.folder import read_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

SMALL = "--ctx 8 --dim 8 --layers 1 --heads 1 --batch 2 --steps 4 --sample-every 0 --backend numpy"
COMMANDS = {
    "train": f"train --data text.txt {SMALL} --out new",
    "generate": "generate run --length 5 --backend numpy",
    "attention": "attention run --prompt the",
    "parameters": "parameters run",
    "plan": f"plan --data text.txt {SMALL}",
    "list": "profile list",
    "help": "--help",
    "version": "--version",
    "wrong": "generate nothing",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text.txt and a run in it."""
    folder = tmp_path_factory.mktemp("streams")
    train(tiny_config(folder))
    return folder


def bevia(line: str, redirect: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    """Run a command from a shell, which redirects its streams; return exit code, output and errors."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m bevia_fast {line} {redirect}', sys.executable], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("redirect", [
    ">&- 2>&- <&-", ">/dev/full", *(pytest.param(each, marks=pytest.mark.slow) for each in (">&-", "2>&-", "<&-")),
])  # fmt: skip
@pytest.mark.parametrize("command", COMMANDS)
def test_closed_and_full_streams(place: Path, command: str, redirect: str) -> None:
    new = place / "new"
    if new.exists():
        new.rename(place / f"old-{len(list(place.iterdir()))}")
    code, out, err = bevia(COMMANDS[command], redirect, place)
    expected = 2 if command == "wrong" else 1 if redirect == ">/dev/full" else 0
    assert code == expected, err
    assert err.count("\n") == (code != 0 and "2>&-" not in redirect)
    if code == 1:
        assert err.startswith("bevia-fast: error: ")
        assert "standard output" in err
        assert "No space left on device" in err
    if command == "train":
        assert len(read_metrics(new)) == 5
        assert {path.name for path in new.iterdir()} >= {"model.safetensors", "sample.txt", "loss.png", "checkpoints"}
        assert all(b"step " not in path.read_bytes() for path in new.glob("*.txt"))
    if ">" not in redirect.replace("2>", ""):
        assert bool(out) == (command != "wrong")


@pytest.mark.parametrize("command", ["train", "generate", "version"])
def test_unbuffered_output_to_a_full_disk(place: Path, command: str) -> None:
    code, _, err = bevia(COMMANDS[command].replace("new", "unbuffered"), ">/dev/full", place, PYTHONUNBUFFERED="1")
    assert code == 1
    assert err.count("\n") == 1
    assert "No space left on device." in err


def test_errors_that_cannot_be_printed_change_no_exit_code(place: Path) -> None:
    assert bevia(COMMANDS["wrong"], "2>/dev/full", place) == (2, "", "")
    assert bevia(COMMANDS["wrong"], ">/dev/full 2>/dev/full", place) == (2, "", "")


def test_a_closed_standard_input_is_not_an_empty_text(place: Path) -> None:
    code, out, err = bevia(f"train --data - {SMALL} --out closed", "<&-", place)
    assert (code, out, err) == (2, "", "bevia-fast: error: There is no standard input to read.\n")
    assert not (place / "closed").exists()


def test_a_run_goes_on_when_its_output_cannot_be_written() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    full = Steadfast(Full())
    assert full.write("abc") == 3
    assert full.problem == "No space left on device"
    with pytest.raises(BrokenPipeError):
        Steadfast(Gone()).write("abc")
    watched = Steadfast(Gone(), only_to_watch=True)
    assert watched.write("abc") == 3
    assert watched.problem
    closed = io.StringIO()
    closed.close()
    assert Steadfast(closed).write("abc") == 3
    assert Steadfast(sys.stdout).isatty() == sys.stdout.isatty()


# --------------------------------------------------------------------------------------------------------- environment


BROKEN = {"NUMBA_DISABLE_JIT": "1", "NUMBA_NUM_THREADS": "0", "NUMBA_OPT": "foo", "NUMBA_BOUNDSCHECK": "x",
          "NUMBA_CACHE_LOCATOR_CLASSES": "a.b", "NUMBA_THREADING_LAYER": "foo",
          "NUMBA_THREADING_LAYER_PRIORITY": "foo"}  # fmt: skip
SLOW_ONES = {"NUMBA_NUM_THREADS": ["-1", "abc", "\x1b[2J", ""], "NUMBA_OPT": ["-7", "9"], "NUMBA_DEBUGINFO": ["x"],
             "NUMBA_CACHE_LOCATOR_CLASSES": ["x", "os.x"], "NUMBA_LOOP_VECTORIZE": ["x"]}  # fmt: skip
PAIRS = [*BROKEN.items(), *(pytest.param(name, value, marks=pytest.mark.slow)
                            for name, values in SLOW_ONES.items() for value in values)]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), PAIRS)
def test_values_for_numba_that_are_broken_are_a_sentence(place: Path, name: str, value: str) -> None:
    code, out, err = bevia("generate run --length 5", "", place, **{name: value})
    if code == 0:  # Numba takes it, such as an empty one
        assert (name, value) not in BROKEN.items()
        assert err == ""
        return
    assert (code, out) == (2, "")
    assert err.startswith("bevia-fast: error: ")
    assert err.count("\n") == 1
    assert name in err
    assert "\x1b" not in err
    assert bevia(COMMANDS["generate"], "", place, **{name: value})[0] == 0  # NumPy does not care


@pytest.mark.parametrize("command", ["doctor --no-measure", "check --quick"])
def test_commands_that_need_numba_say_so(place: Path, command: str) -> None:
    code, out, err = bevia(command, "", place, NUMBA_DISABLE_JIT="1")
    assert (code, out) == (2, "")
    assert err == (
        "bevia-fast: error: NUMBA_DISABLE_JIT is 1, so Numba compiles nothing; unset it.\n"
    )


@pytest.mark.parametrize("command", ["list", "plan", "completion bash", "version"])
def test_commands_that_need_no_numba_do_not_ask_for_it(place: Path, command: str) -> None:
    code, out, err = bevia(COMMANDS.get(command, command), "", place, NUMBA_DISABLE_JIT="1")
    assert (code, err) == (0, "")
    assert out
    if command == "plan":
        code, out, err = bevia("plan --data text.txt --ctx 8", "", place, NUMBA_DISABLE_JIT="1")
        assert (code, out) == (2, "")
        assert err.endswith("so Numba compiles nothing; unset it, or take --backend numpy.\n")


@pytest.mark.parametrize("command", [f"{COMMANDS['plan']} --json -", "attention run --prompt the --out -"])
def test_what_is_asked_for_on_standard_output_is_not_lost_in_silence(place: Path, command: str) -> None:
    for redirect, expected, why in ((">&-", 2, "it is closed"), (">/dev/full", 1, "No space left on device")):
        code, out, err = bevia(command, redirect, place)
        assert (code, out) == (expected, "")
        assert err.endswith(f"bevia-fast: error: Cannot write to standard output: {why}.\n")


HOMELESS = """
import os, pwd, sys
def unknown(*_):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
from bevia_fast.commands.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("missing", ["HOME", "HOME and the cache", "TMPDIR"])
def test_without_a_home_training_says_one_line_at_most(tmp_path: Path, missing: str) -> None:
    """As in a container that runs under a number which has no entry in /etc/passwd."""
    config = tiny_config(tmp_path)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("HOME", "XDG_CACHE_HOME", "BEVIA_FAST_CACHE_DIR", "XDG_CONFIG_HOME")}  # fmt: skip
    if missing == "TMPDIR":
        environment = {**os.environ, "TMPDIR": "/dev/null/x"}
    elif missing == "HOME and the cache":
        environment["BEVIA_FAST_CACHE_DIR"] = "/dev/null/x"
    line = f"train --data {config.data[0]} {SMALL} --out run".split()
    done = subprocess.run([sys.executable, "-c", HOMELESS, *line], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=300)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("note ") <= 1
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "run"}  # no folder called ~
    assert (tmp_path / "run" / "loss.png").exists()


def test_without_a_home_there_is_no_folder_for_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEVIA_FAST_CACHE_DIR", raising=False)
    for answer in ("~/.cache/bevia-fast", ".cache"):
        monkeypatch.setattr(places.platformdirs, "user_cache_dir", lambda name, answer=answer: answer)
        assert cache_folder() == places.NOWHERE / "texts"
        with pytest.raises(OSError, match="Not a directory"):
            cache_folder().mkdir(parents=True)

    def fail(name: str) -> str:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places.platformdirs, "user_cache_dir", fail)
    assert places.cache_root() == places.NOWHERE
    monkeypatch.setenv("BEVIA_FAST_CACHE_DIR", "/somewhere")
    assert places.cache_root() == Path("/somewhere")


def test_other_warnings_of_numba_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    from bevia_fast.backends import require_numba

    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    require_numba()
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    with pytest.raises(ConfigError, match="NUMBA_DISABLE_JIT is set, so Numba compiles nothing"):
        require_numba()
