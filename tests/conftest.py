"""Shared fixtures, such as the backends; hypothesis draws the same examples in every run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from bevia_fast.config import ModelConfig
from bevia_fast.kernels import BACKENDS, get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.naming import on_the_command_line
from bevia_fast.training.compiling import two_compilers

os.environ["PYTHONSAFEPATH"] = "1"  # subprocesses import the same package as the tests, not one in their current folder
for name in ("COLUMNS", "LINES"):  # some shells export them, and so does pytest-xdist; output would be fitted to them
    os.environ.pop(name, None)

settings.register_profile("repeatable", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist hand out the files in their order. By its own, files with few tests come last, which are those
    with the longest ones: the page's browser would keep one process busy for minutes after the other has finished."""
    config.option.loadscopereorder = False


@pytest.fixture(scope="session", autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Restore the default signal handlers, as if the tests had been started from a terminal.

    Under nohup or in the background of a script, signals are ignored. Child processes inherit that, and training does
    not handle a signal that is ignored.
    """
    usual = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    known = [getattr(signal, name) for name in usual if hasattr(signal, name)]
    ignored = [number for number in known if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number.name])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def compiled_by_two() -> Iterator[None]:
    """Compile missing kernels in two processes, which halves the time that the tests wait for them."""
    models = [ModelConfig(vocab_size=5, dropout=0.1, dtype=dtype) for dtype in ("float32", "float64")]
    with two_compilers(models, optimizer="muon"):
        yield


@pytest.fixture(scope="module")
def typed() -> Iterator[None]:
    """Messages name options as on the command line, not as in Python."""
    with on_the_command_line():
        yield


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    return get_backend(request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip plots and disk flushes, which take longer than all the steps of a small run."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("bevia_fast.training.loop._Session._draw", lambda self: None)
