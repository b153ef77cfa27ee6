"""Ctrl-C while kernels are compiled: a little later, and not lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import numba
import pytest

from bevia_fast.kernels.numba_jit._runtime.interrupts import checkpoint, deferred
from bevia_fast.kernels.numba_jit._runtime.linking import only

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")


def press_ctrl_c() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "".join(["still ", "here"])


@pytest.fixture(autouse=True)
def _the_handler_comes_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before
    checkpoint()  # nothing is left


def test_it_waits_for_a_checkpoint() -> None:
    said = []

    def compiled() -> None:
        checkpoint()
        said.append(press_ctrl_c())
        checkpoint()
        said.append("too far")

    with pytest.raises(KeyboardInterrupt), deferred():
        compiled()
    assert said == ["still here"]


def test_a_function_that_is_being_compiled_is_given_up() -> None:
    half = numba.njit(lambda x: x / 2)
    said = []

    def compiled() -> None:
        said.append(press_ctrl_c())
        half.compile("(float64,)")
        said.append("too far")

    with pytest.raises(KeyboardInterrupt), deferred(), only("another"):
        compiled()
    assert said == ["still here"]
    assert not half.signatures


def test_or_to_the_end() -> None:
    said = ""
    with pytest.raises(KeyboardInterrupt), deferred(), deferred():
        said = press_ctrl_c()
    assert said == "still here"


def test_a_second_one_does_not_wait() -> None:
    said = []

    def compiled() -> None:
        said.append(press_ctrl_c())
        said.append(press_ctrl_c())

    with pytest.raises(KeyboardInterrupt), deferred():
        compiled()
    assert said == ["still here"]


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), deferred():
        len(press_ctrl_c()) / 0


def test_a_handler_that_raises_nothing_is_called_once() -> None:
    numbers: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: numbers.append(number))
    try:
        with deferred():
            press_ctrl_c()
            assert numbers == []
            checkpoint()
            assert numbers == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
    assert numbers == [signal.SIGINT]


def test_what_is_ignored_stays_ignored_and_other_threads_change_nothing() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred():
            assert press_ctrl_c() == "still here"
            checkpoint()
    finally:
        signal.signal(signal.SIGINT, before)
    found = []

    def work() -> None:
        with deferred():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
