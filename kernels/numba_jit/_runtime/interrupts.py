"""Ctrl-C while a kernel is compiled: it ends that at the next convenient place, within a second or so.

Python raises KeyboardInterrupt wherever it happens to be. In the compiler that may be in a callback, where it is
printed and forgotten, and what the callback should have brought is missing; or just where memory gets another owner,
and the process crashes when it ends. So it is only noted, until `checkpoint`. Who presses it twice does not want to
wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class _Noted:
    """Takes the place of the handler of Ctrl-C."""

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
def put_off() -> Iterator[None]:
    """Within, Ctrl-C is handled at the next `checkpoint`; if none comes, at the end."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    noted = _Noted(handler)
    signal.signal(signal.SIGINT, noted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    noted.checkpoint()


def checkpoint() -> None:
    """A convenient place."""
    noted = signal.getsignal(signal.SIGINT)
    if isinstance(noted, _Noted) and threading.current_thread() is threading.main_thread():
        noted.checkpoint()
