"""Ctrl-C during compilation takes effect at the next safe point, within a second or so.

Python raises KeyboardInterrupt wherever it happens to be. In the compiler this may be a callback, where the exception
is printed and lost together with the callback's result; or a place where memory changes owners, and the process crashes
when it exits. So the signal is only recorded until the next `checkpoint`. A second Ctrl-C does not wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class _Deferred:
    """A signal handler that records Ctrl-C and passes it on at a checkpoint."""

    def __init__(self, handler: Callable[[int, FrameType | None], object]) -> None:
        self.handler, self.count = handler, 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            self.handler(number, frame)

    def checkpoint(self) -> None:
        if self.count:
            self.count = 0
            self.handler(signal.SIGINT, None)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside this context, handle Ctrl-C at the next `checkpoint`, or at the end if there is none."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():  # gets no signals
        yield
        return
    recorded = _Deferred(handler)
    signal.signal(signal.SIGINT, recorded)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    recorded.checkpoint()


def checkpoint() -> None:
    """Handle a Ctrl-C that arrived since the last safe point."""
    current = signal.getsignal(signal.SIGINT)
    if isinstance(current, _Deferred) and threading.current_thread() is threading.main_thread():
        current.checkpoint()
