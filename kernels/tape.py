"""A pass of the model, recorded while it runs, and then played: the same calls, without the Python that makes them.

Every step of a training makes the same calls on the same arrays, and in a small model the functions that find these
arrays and plan the work take as long as some of the work. So the first pass of a kind is made as it stands in the
model, with the contract's checks; working memory grows to its size in it. The second is recorded. From the third on,
what was recorded is called. What a backend has recorded is up to it: by itself it is the operations, without their
checks; one that has a function `launches` says which functions it calls in them, and with what.

Two things differ from pass to pass. Token ids have to be checked, and written to the arrays that were recorded, by
whoever asks for the pass. The keys of dropout masks are asked for again: wherever an argument was one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, cast

import numpy as np

from .contract import OPERATIONS, UNCHECKED, Backend

NOT_PLAYED = 2  # passes of a kind that come before: one is made, one recorded
KINDS = 4  # tapes that are kept: an evaluation's and a training step's, each with and without instruments, say
MOST_CALLS = 1000  # of a pass that is recorded: one that makes more takes so long that Python's time is nothing
Place = tuple[Any, ...]  # what a key is asked for with


class Keys(Protocol):
    """Where a pass has the keys of its dropout masks from; each is another number."""

    def key(self, *place: Any) -> int: ...


Pass = Callable[[Backend, Any], None]  # what calls a backend's operations, with keys from the second argument


@dataclass(slots=True)
class Launch:
    """A function and what it is called with."""

    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]


class Tapes:
    """The tapes of passes over the same arrays."""

    def __init__(self) -> None:
        self._tapes: dict[Hashable, Tape] = {}  # the one that was used last at the end
        self._under: object = None  # the conditions after the last pass

    def run(self, backend: Backend, kind: Hashable, make: Pass, keys: Keys | None, *kept: object) -> None:
        """Make a pass, or what comes to the same.

        All passes of a kind must make the same calls, but for the keys. `kept` is not touched: objects that must not
        go, and make room for others at the same address, while a kind is known by their addresses.
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
        if self._under != before:  # working memory has grown, as a rule: what was there before can go
            self._tapes.clear()
            self._tapes[kind] = Tape(backend, *kept, made=True)

    def clear(self) -> None:
        """Let all arrays go."""
        self._tapes.clear()


class Tape:
    """One kind of pass on a backend: made, recorded, played."""

    def __init__(self, backend: Backend, *kept: object, made: bool = False) -> None:
        self.kept, self._backend, self._made = kept, backend, made
        self.calls: list[list[Launch]] = []  # of each operation; empty until recorded
        self._keyed: dict[Place, list[tuple[Any, Any]]] = {}  # (list or dict of arguments, place in it) of each key
        self._play: Callable[[Tape], None] = getattr(backend, "play", Tape.play)

    def run(self, make: Pass, keys: Keys | None) -> None:
        """The next pass."""
        if self.calls:
            self._renew(keys)
            self._play(self)
        elif self._made:
            self._record(make, keys)
        else:
            make(self._backend, keys)
            self._made = True

    def play(self) -> None:
        """Call what was recorded."""
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
        self.calls, self._keyed = calls, keyed  # at last: half a pass is none

    def _recording(self, calls: list[list[Launch]]) -> Backend:
        """The backend, with all calls of its operations noted, but those beyond MOST_CALLS and one."""
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
        """Put the keys of this pass in the place of those before."""
        for place, holders in self._keyed.items():
            key = cast(Keys, keys).key(*place)
            for holder, at in holders:
                holder[at] = type(holder[at])(key)


def _conditions(backend: Backend) -> object:
    """What must not have changed since a pass was recorded, if it is to be played."""
    conditions: Callable[[], object] = getattr(backend, "conditions", lambda: 0)
    return conditions()
