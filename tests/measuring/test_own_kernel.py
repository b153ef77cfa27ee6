"""A kernel of the user's, timed beside both backends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bevia_fast.commands.main import main
from bevia_fast.errors import ConfigError, UserError
from bevia_fast.measuring.kernel_jobs import profile_jobs
from bevia_fast.measuring.options import ProfileKernelConfig
from bevia_fast.measuring.own_kernel import OwnKernel, own_kernel

MINE = """
import numba
import numpy as np
from beside import half

print("hello")

def relu_forward(out, inp):
    np.maximum(inp, 0, out=out)

def wrong(out, inp):
    out[...] = half(inp)

def other(out):
    out[...] = 0

@numba.njit(fastmath={"contract"})
def fast_relu(out, inp):
    a, b = out.ravel(), inp.ravel()
    for i in range(a.size):
        a[i] = b[i] if b[i] > 0 else np.float32(0)
"""
LINE = ["--ctx", "32", "--dim", "16", "--seconds", "0.01", "--threads", "1", "--backend", "numba", "--out", "own.svg"]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("def half(x):\n    return x / 2\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit('no thanks')\n")


@pytest.mark.parametrize(("name", "like"), [("relu_forward", ""), ("fast_relu", "relu_forward")])
def test_its_figures_are_those_of_the_operation(name: str, like: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["profile", f"mine.py:{name}", *LINE, *(["--like", like] if like else []), "--json", "k.json"]
    assert main(line) == 0
    assert f"mine.py:{name}" in capsys.readouterr().out
    numba, own = json.loads(Path("k.json").read_text())
    assert (numba["backend"], own["backend"]) == ("numba", f"mine.py:{name}")
    for figure in ("kernel", "size", "flops", "bytes"):
        assert own[figure] == numba[figure]
    assert own["ms_median"] > 0
    assert Path("own.svg").read_text().startswith("<?xml")


def test_one_that_computes_something_else_is_not_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "mine.py:wrong", "--like", "relu_forward", *LINE]) == 1
    assert "mine.py:wrong differs from numpy, so nothing was timed: relu_forward" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["none.py:f"], "There is no file none.py."),
        (["mine.py:wrong"], "The function wrong is no operation; say with --like what it computes"),
        (["mine.py:wrong", "--like", "relu"], "--like relu is no operation (did you mean relu_forward?)"),
        (["mine.py:none", "--like", "relu_forward"], "mine.py has no function 'none'."),
        (["mine.py:np", "--like", "relu_forward"], "mine.py has no function 'np'."),
        (["broken.py:f", "--like", "relu_forward"], "broken.py cannot be run: ZeroDivisionError: division by zero."),
        (["leaves.py:f", "--like", "relu_forward"], "leaves.py cannot be run: SystemExit: no thanks."),
        (["mine.py:other", "--like", "relu_forward"], "unexpected keyword argument 'inp'"),
        (["relu", "--like", "relu_forward"], "--like says what your own kernel computes, and none is named"),
        (["mine.py:wrong", "--like", "relu_forward", "--asm"], "mine.py:wrong is not compiled by Numba"),
        (["mine.py:other", "--like", "relu_forward", "--asm"], "mine.py:other is not compiled by Numba"),
        (["relu", "--all-loops"], "--all-loops needs --asm."),
    ],
)
def test_what_cannot_be_timed_is_one_sentence(names: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *names, *LINE]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not Path("own.svg").exists()


def test_its_machine_code_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "mine.py:fast_relu", "--like", "relu_forward", "--asm", *LINE]) == 0
    out = capsys.readouterr().out
    assert "\n\nmine.py:fast_relu: fast_relu\n    " in out


def test_words_on_the_command_line() -> None:
    jobs = profile_jobs(ProfileKernelConfig(("adamw", "mine.py:relu_forward", "gelu")))
    assert [(job.operation, job.own and job.own.function) for job in jobs] == [
        ("relu_forward", "relu_forward"), ("adamw", None), ("gelu_forward", None), ("gelu_backward", None),
    ]  # fmt: skip
    assert jobs[0].memory(["numpy"], "float32") > jobs[2].memory(["numpy"], "float32")
    assert own_kernel("mine.py:relu_forward", "") == OwnKernel("mine.py", "relu_forward", "relu_forward")
    with pytest.raises(ConfigError):
        own_kernel("mine.py:relu", "")
    with pytest.raises(UserError):
        OwnKernel("mine.py", "np", "relu_forward").load()
