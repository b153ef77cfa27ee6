"""Ctrl-C, a request to terminate, a closed terminal: finish the current step first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

POLITE = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HANGUP = getattr(signal, "SIGHUP", None)  # a closing terminal often sends it twice, once through its shell


@contextlib.contextmanager
def finish_on_signal(told: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Inside this context, the yielded function returns the number of the first signal that arrived, or 0.

    A second signal stops at once: Ctrl-C raises KeyboardInterrupt, others raise SystemExit with 128 + their number as
    exit code. A second SIGHUP is ignored. A signal that was ignored before, as with nohup, stays ignored.
    """
    first: list[int] = []

    def requested() -> int:
        return first[0] if first else 0

    if threading.current_thread() is not threading.main_thread():  # gets no signals
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if first and number == HANGUP == first[0]:
            return
        if first:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        first.append(number)
        # a signal may arrive in the middle of a step or of printing, so nothing may be raised here
        with contextlib.suppress(Exception):
            told()

    before = {}
    try:
        for number in POLITE:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
