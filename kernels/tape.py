"""Tapes: record the kernel calls of a pass once, then replay them without the model's Python code.

Every training step makes the same calls on the same arrays. In a small model, the Python code that finds the arrays and
plans the work takes a noticeable share of the step. So the first pass of a kind runs as the model writes it, with the
checks of the contract; during it, working memory grows to its final size. The second pass is recorded. From the third
on, the recorded calls are replayed.

What is recorded depends on the backend. By default it is the operations, without their checks. A backend with a
function `launches` says which compiled functions its operations call, and with which arguments; then it is these.

Two things differ between passes. The caller checks the token ids of a pass and writes them into the recorded arrays.
The keys of dropout masks are requested again, and replace the recorded ones among the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, cast

import numpy as np

from .contract import OPERATIONS, UNCHECKED, Backend

NOT_PLAYED = 2  # passes of a kind before the first replay: one runs as written, one is recorded
KINDS = 4  # tapes to keep, such as those of an evaluation and a training step, with and without instruments
MOST_CALLS = 1000  # of a recorded pass; in a longer one, Python's share of the time is negligible
Place = tuple[Any, ...]  # the arguments of `Keys.key`


class Keys(Protocol):
    """The keys of a pass's dropout masks. No two places have the same key."""

    def key(self, *place: Any) -> int: ...


Pass = Callable[[Backend, Any], None]  # calls the operations of a backend, with keys from the second argument


@dataclass(slots=True)
class Launch:
    """A function and its arguments."""

    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]


class Tapes:
    """The tapes of passes over the same arrays."""

    def __init__(self) -> None:
        self._tapes: dict[Hashable, Tape] = {}  # the most recently used one last
        self._under: object = None  # the backend's conditions after the last pass

    def run(self, backend: Backend, kind: Hashable, make: Pass, keys: Keys | None, *kept: object) -> None:
        """Run a pass: as written, while recording it, or by replaying it.

        All passes of a kind must make the same calls, except for the keys. The tape holds references to `kept`, so that
        objects whose addresses identify a kind are not freed and replaced by others at the same addresses.
        """
        before = _conditions(backend)
        if before != self._under:
            self._tapes.clear()
        tape = self._tapes.pop(kind, None) or Tape(backend, *kept)
        while len(self._tapes) >= KINDS:
            del self._tapes[next(iter(self._tapes))]
        self._tapes[kind] = tape
        tape.run(make, keys)
        self._under = _conditions(backend)
        if self._under != before:  # usually working memory has grown: recorded addresses are out of date
            self._tapes.clear()
            self._tapes[kind] = Tape(backend, *kept, made=True)

    def clear(self) -> None:
        """Release all arrays."""
        self._tapes.clear()


class Tape:
    """One kind of pass on a backend: run as written, recorded, replayed."""

    def __init__(self, backend: Backend, *kept: object, made: bool = False) -> None:
        self.kept, self._backend, self._made = kept, backend, made
        self.calls: list[list[Launch]] = []  # the launches of each operation; empty until recorded
        self._keyed: dict[Place, list[tuple[Any, Any]]] = {}  # (list or dict, index or name) of each key
        self._play: Callable[[Tape], None] = getattr(backend, "play", Tape.play)

    def run(self, make: Pass, keys: Keys | None) -> None:
        """Run the next pass."""
        if self.calls:
            self._renew(keys)
            self._play(self)
        elif self._made:
            self._record(make, keys)
        else:
            make(self._backend, keys)
            self._made = True

    def play(self) -> None:
        """Replay the recorded calls."""
        for launches in self.calls:
            for launch in launches:
                launch.function(*launch.arguments, **launch.options)

    def _record(self, make: Pass, keys: Keys | None) -> None:
        calls, places, keyed = list[list[Launch]](), dict[int, Place](), dict[Place, list[tuple[Any, Any]]]()

        def key(*place: Any) -> int:
            value = cast(Keys, keys).key(*place)
            places[value] = place
            return value

        make(self._recording(calls), keys and SimpleNamespace(key=key))
        if len(calls) > MOST_CALLS:
            return
        for launch in (launch for launches in calls for launch in launches):
            for holder in (launch.arguments, launch.options):
                for at, value in enumerate(holder) if isinstance(holder, list) else holder.items():
                    if isinstance(value, int | np.uint64) and int(value) in places:
                        keyed.setdefault(places[int(value)], []).append((holder, at))
        self.calls, self._keyed = calls, keyed  # last, so that a pass that fails leaves no half recording

    def _recording(self, calls: list[list[Launch]]) -> Backend:
        """Return the backend with operations that note their calls, up to one more than MOST_CALLS."""
        launches = getattr(self._backend, "launches", None)

        def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if len(calls) > MOST_CALLS:
                    return function(*arguments, **options)
                if launches is None:
                    result = function(*arguments, **options)
                    calls.append([Launch(getattr(function, UNCHECKED, function), list(arguments), options)])
                    return result
                with launches() as made:
                    result = function(*arguments, **options)
                calls.append(made)
                return result

            return call

        operations = {name: recorded(getattr(self._backend, name)) for name in OPERATIONS}
        return cast(Backend, SimpleNamespace(name=self._backend.name, **operations))

    def _renew(self, keys: Keys | None) -> None:
        """Replace the keys in the recorded arguments by those of this pass."""
        for place, holders in self._keyed.items():
            key = cast(Keys, keys).key(*place)
            for holder, at in holders:
                holder[at] = type(holder[at])(key)


def _conditions(backend: Backend) -> object:
    """Return what must not change between the recording of a pass and its replay."""
    conditions: Callable[[], object] = getattr(backend, "conditions", lambda: 0)
    return conditions()
