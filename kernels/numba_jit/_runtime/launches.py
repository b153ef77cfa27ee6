"""Compiled functions as Python calls them: one at a time where the threading layer asks for that, and noted if somebody
wants to make the same calls again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numba

from ...tape import Launch
from . import scratch, threads

_local = threading.local()  # `launches`: where calls of this Python thread are noted, or None
_running = threading.Lock()  # of all kernels, where only one may run


class Kernel:
    """A compiled function."""

    def __init__(self, dispatcher: Any, *, alone: bool) -> None:
        """`alone`: it waits until no other runs, for Numba's own threading layer, workqueue, starts one at a time."""
        self.dispatcher, self.alone = dispatcher, alone

    def __call__(self, *arguments: Any) -> Any:
        result = self._alone(*arguments) if self.alone else self.dispatcher(*arguments)
        noted = getattr(_local, "launches", None)
        if noted is not None:
            # what the dispatcher finds out in each call, the machine code for these types, is known from here on
            code = self.dispatcher.get_overload(tuple(map(numba.typeof, arguments)))
            noted.append(Launch(self._alone if self.alone else code, list(arguments), {}))
        return result

    def _alone(self, *arguments: Any) -> Any:
        with _running:
            return self.dispatcher(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dispatcher, name)


@contextlib.contextmanager
def launches() -> Iterator[list[Launch]]:
    """Within, the kernels that this Python thread calls are noted. They may be called with the same arguments again,
    to do the same again, under the same `conditions`."""
    before, _local.launches = getattr(_local, "launches", None), []
    try:
        yield _local.launches
    finally:
        _local.launches = before


def conditions() -> object:
    """What must not have changed since kernels were called, if they are to be called with the same arguments: the
    number of threads, for which the work was cut; and the working memory of this Python thread."""
    return threads.thread_count(), scratch.generation()
