"""Ctrl-C, a polite request to end, a closed terminal: finish the step in hand first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

POLITE = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HANGUP = getattr(signal, "SIGHUP", None)  # a terminal that is closed often sends it twice, by itself and by its shell


@contextlib.contextmanager
def finish_on_signal(told: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Within, the given function returns the number of the first signal that came, 0 before. The second ends at once:
    Ctrl-C by KeyboardInterrupt, the others by SystemExit, with 128 + the number as the exit code. Only that a terminal
    was closed says no more the second time.

    A signal that the caller had ignored, as nohup does, stays ignored.
    """
    first: list[int] = []

    def requested() -> int:
        return first[0] if first else 0

    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if first and number == HANGUP == first[0]:
            return
        if first:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        first.append(number)
        # it may come in the middle of a step, or of printing: nothing may be raised here
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
