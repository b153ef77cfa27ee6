"""What all tests share: the backends as a fixture, and hypothesis drawing the same examples in every run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from bevia_fast.config import ModelConfig
from bevia_fast.kernels import BACKENDS, get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.training.compiling import two_compilers

os.environ["PYTHONSAFEPATH"] = "1"  # processes that tests start import what the tests import, not what lies around

settings.register_profile("repeatable", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """As from a terminal, however the tests were started: nohup and the background of a script ignore signals, their
    children inherit that, and training leaves alone what is ignored."""
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
    """Where the kernels are new, the tests wait for them half as long."""
    with two_compilers([ModelConfig(vocab_size=5, dropout=0.1, dtype=dtype) for dtype in ("float32", "float64")]):
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
    """Drawing, and waiting for the disk, take longer than all steps of a small run."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("bevia_fast.training.loop._Session._draw", lambda self: None)
