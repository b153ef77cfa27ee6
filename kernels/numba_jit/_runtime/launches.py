"""Compiled functions as Python calls them: one at a time if the threading layer requires it, and recorded on request so
that a tape can repeat the calls."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numba

from ...tape import Launch
from . import scratch, threads

_local = threading.local()  # `launches`: the record of this Python thread's calls, or None
_running = threading.Lock()  # held by the one kernel that may run


class Kernel:
    """A compiled function."""

    def __init__(self, dispatcher: Any, *, alone: bool) -> None:
        """With `alone`, a call waits for other kernels: Numba's workqueue layer can run only one at a time."""
        self.dispatcher, self.alone = dispatcher, alone

    def __call__(self, *arguments: Any) -> Any:
        result = self._alone(*arguments) if self.alone else self.dispatcher(*arguments)
        record = getattr(_local, "launches", None)
        if record is not None:
            # the machine code for these types, which the dispatcher would look up in each call
            code = self.dispatcher.get_overload(tuple(map(numba.typeof, arguments)))
            record.append(Launch(self._alone if self.alone else code, list(arguments), {}))
        return result

    def _alone(self, *arguments: Any) -> Any:
        with _running:
            return self.dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dispatcher, name)


@contextlib.contextmanager
def launches() -> Iterator[list[Launch]]:
    """Inside this context, record the kernels that this Python thread calls.

    Under the same `conditions`, the recorded calls can be repeated with the same arguments.
    """
    before, _local.launches = getattr(_local, "launches", None), []
    try:
        yield _local.launches
    finally:
        _local.launches = before


def conditions() -> object:
    """Return what must be unchanged if recorded calls are to be repeated.

    These are the number of threads, for which the work was divided, and the working memory of this Python thread.
    """
    return threads.thread_count(), scratch.generation()
