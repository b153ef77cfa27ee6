"""Backends that wrap another one and record its calls: their arguments, or when they begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .contract import OPERATIONS, UNCHECKED, Backend
from .tape import Launch, Tape

clock = time.perf_counter_ns  # monotonic, and never adjusted during a measurement


class Recorder:
    """A backend that records when each call of another backend, or of a tape made with it, begins and ends."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.times: list[int] = []  # begin, end, begin, end, ...
        for operation in OPERATIONS:
            setattr(self, operation, self._recording(getattr(backend, operation)))
        for name in ("launches", "conditions"):
            if hasattr(backend, name):
                setattr(self, name, getattr(backend, name))

    def _recording(self, function: Callable[..., Any]) -> Callable[..., Any]:
        record = self.times.append

        def recording(*args: Any, **kwargs: Any) -> Any:
            record(clock())
            result = function(*args, **kwargs)
            record(clock())
            return result

        setattr(recording, UNCHECKED, getattr(function, UNCHECKED, function))
        return recording

    def taken(self) -> list[int]:
        """Return the nanoseconds of each call."""
        return [end - begin for begin, end in zip(self.times[::2], self.times[1::2], strict=True)]

    def play(self, tape: Tape) -> None:
        """Play a tape as it plays itself, and record the times of its calls."""
        record = self.times.append
        for launches in tape.calls:
            record(clock())
            for launch in launches:
                launch.function(*launch.arguments, **launch.options)
            record(clock())


class Listener:
    """A backend that records the arguments of each call of another backend."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.called: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        for operation in OPERATIONS:
            setattr(self, operation, self._listening(operation, getattr(backend, operation)))

    def _listening(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*args: Any, **kwargs: Any) -> Any:
            self.called.append((operation, args, kwargs))
            return function(*args, **kwargs)

        return listening

    @property
    def operations(self) -> list[str]:
        """The operations that were called, in the order of their first calls."""
        return list(dict.fromkeys(operation for operation, _, _ in self.called))


def instruments_ns(rounds: int = 20, calls: int = 500) -> float:
    """Return the nanoseconds that a `Recorder` adds to a call.

    Plays a tape of calls that do nothing, with and without the recorder, and takes the fastest of some rounds of each:
    whatever else the machine does can only add time.
    """
    nothing = Launch(lambda *arguments: None, [1, 2, 3, 4], {})
    silent: Any = SimpleNamespace(name="silent", **dict.fromkeys(OPERATIONS, nothing.function))
    recorder, tape = Recorder(silent), Tape(silent)
    tape.calls = [[nothing] for _ in range(calls)]
    least = []
    for play in (recorder.play, Tape.play):
        found = []
        for _ in range(rounds):
            before = clock()
            play(tape)
            found.append(clock() - before)
            recorder.times.clear()
        least.append(min(found) / calls)
    return least[0] - least[1]
