"""What differs on Windows and macOS, simulated: their attributes are missing or patched in."""

from __future__ import annotations

import builtins
import ctypes
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bevia_fast import machine
from bevia_fast.kernels import memory
from bevia_fast.kernels.lock import FAR, take_lock
from bevia_fast.kernels.numba_jit._runtime import threads
from bevia_fast.measuring import worker
from bevia_fast.training import signals


class WindowsLocks(types.ModuleType):
    """The part of `msvcrt` that is used: a lock on bytes from the current position on."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.locked: set[int] = set()

    def locking(self, handle: int, mode: int, count: int) -> None:
        place = os.lseek(handle, 0, os.SEEK_CUR)
        assert (mode, count) == (self.LK_NBLCK, 1)
        if place in self.locked:
            raise PermissionError(13, "Permission denied")
        self.locked.add(place)


def test_a_lock_on_windows_leaves_the_files_contents_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = WindowsLocks()
    monkeypatch.setitem(sys.modules, "msvcrt", locks)
    monkeypatch.setattr(sys, "platform", "win32")
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"a line\n")
    handle = os.open(path, os.O_RDWR)
    try:
        os.lseek(handle, 3, os.SEEK_SET)
        assert take_lock(handle)
        assert locks.locked == {FAR}
        assert os.lseek(handle, 0, os.SEEK_CUR) == 3
        assert not take_lock(handle)
        assert os.fstat(handle).st_size == 7
    finally:
        os.close(handle)


def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide /proc and /sys, which only Linux has."""
    real_open, real_read = builtins.open, Path.read_text

    def hidden(path: Any) -> bool:
        return str(path).startswith(("/proc", "/sys"))

    def opening(path: Any, *arguments: Any, **options: Any) -> Any:
        if hidden(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real_open(path, *arguments, **options)

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        if hidden(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real_read(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", opening)
    monkeypatch.setattr(Path, "read_text", read_text)


def test_macos_knows_its_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proc(monkeypatch)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 1 << 14}.__getitem__)
    assert machine.available_bytes() == 1 << 34
    assert machine.resident_bytes() == 0
    assert machine.cpu_name()
    assert worker.peak_rss_bytes() > 0
    worker.reset_peak_rss()


def test_windows_does_not_know_its_memory_and_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proc(monkeypatch)
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert machine.available_bytes() is None
    machine.refuse_too_large(1 << 60, "This")
    assert worker.peak_rss_bytes() == 0


def test_without_affinity_all_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proc(monkeypatch)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads.allowed_cpus() == set(range(6))
    assert threads.physical_cores() == 6


@pytest.mark.parametrize("error", [TypeError, OSError, None])
def test_other_c_libraries_keep_their_own_ways_with_freed_memory(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows cannot open the program itself as a library; macOS can, but has no mallopt."""

    def library(name: None) -> object:
        if error:
            raise error
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    memory.keep_freed_memory()


def test_ctrl_break_finishes_the_step_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}

    def set_handler(number: int, handler: Any) -> Any:
        before = handlers.get(number, signal.SIG_DFL)
        handlers[number] = handler
        return before

    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    monkeypatch.setattr(signal, "signal", set_handler)
    monkeypatch.setattr(signal, "getsignal", lambda number: handlers.get(number, signal.SIG_DFL))
    with signals.finish_on_signal(lambda: None) as requested:
        assert requested() == 0
        handlers[21](21, None)
        assert requested() == 21
        with pytest.raises(SystemExit) as stopped:
            handlers[21](21, None)
        assert stopped.value.code == 128 + 21
    assert handlers[21] == signal.SIG_DFL
