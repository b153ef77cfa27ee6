"""Backends that hear of each call of another: what it is given, or when it begins and ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from .contract import OPERATIONS, UNCHECKED, Backend
from .tape import Launch, Tape

clock = time.perf_counter_ns  # never goes back, and is not adjusted while we look


class Recorder:
    """A backend that notes the time around each call of another, or around what the call has left on a tape."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.times: list[int] = []  # begin, end, begin, end, ...
        for operation in OPERATIONS:
            setattr(self, operation, self._noting(getattr(backend, operation)))
        for name in ("launches", "conditions"):
            if hasattr(backend, name):
                setattr(self, name, getattr(backend, name))

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        note = self.times.append

        def noting(*args: Any, **kwargs: Any) -> Any:
            note(clock())
            result = function(*args, **kwargs)
            note(clock())
            return result

        setattr(noting, UNCHECKED, getattr(function, UNCHECKED, function))
        return noting

    def taken(self) -> list[int]:
        """Nanoseconds of each call."""
        return [end - begin for begin, end in zip(self.times[::2], self.times[1::2], strict=True)]

    def play(self, tape: Tape) -> None:
        """As the tape does."""
        note = self.times.append
        for launches in tape.calls:
            note(clock())
            for launch in launches:
                launch.function(*launch.arguments, **launch.options)
            note(clock())


class Listener:
    """A backend that notes what each call of another is given."""

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
        """Which were called, in the order of their first calls."""
        return list(dict.fromkeys(operation for operation, _, _ in self.called))


def instruments_ns(rounds: int = 20, calls: int = 500) -> float:
    """What the instruments cost a call: of a tape of calls that do nothing, played with them and without, the least of
    some rounds, for whatever else the machine does can only add to it."""
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
