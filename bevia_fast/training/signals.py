"""Ctrl-C, SIGTERM and a closed terminal: finish the current step before the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# SIGHUP exists on Unix only; SIGBREAK, which is Ctrl-Break, on Windows only
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
HANGUP = getattr(signal, "SIGHUP", None)  # often sent twice for one closed terminal: by the terminal and by its shell


def stop_signals() -> list[int]:
    """Return the numbers of the signals that end a run, as far as the system has them."""
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextlib.contextmanager
def finish_on_signal(interrupted: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Inside this context, the given function returns the number of the first signal received, or 0 before that.

    `interrupted` is called when the first signal arrives. A second signal ends the program at once: Ctrl-C with
    KeyboardInterrupt, the others with SystemExit and exit code 128 + the signal's number. Only a second SIGHUP is
    ignored. Signals that the caller already ignores, as under nohup, stay ignored. Outside the main thread, which is
    the only one to receive signals, the function always returns 0.
    """
    first: list[int] = []

    def requested() -> int:
        return first[0] if first else 0

    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if first and number == HANGUP == first[0]:
            return
        if first:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        first.append(number)
        # The signal may arrive in the middle of a step or of printing, so nothing may be raised here.
        with contextlib.suppress(Exception):
            interrupted()

    before = {}
    try:
        for number in stop_signals():
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
