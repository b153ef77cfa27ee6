"""A pass of the model, recorded while it runs, and then played: the same calls, without the Python that makes them.

Every step of a training makes the same calls on the same arrays, and in a small model the functions that find these
arrays and plan the work take as long as some of the work. So the first pass of a kind is run as it stands in the
model, with the contract's checks; working memory grows to its size in it. The second is recorded. From the third on,
what was recorded is called. What a backend has recorded is up to it: by itself it is the operations, without their
checks; one that has a function `launches` says which functions it calls in them, and with what.

Two things differ from pass to pass. Token ids have to be written to the arrays that were recorded. The keys of dropout
masks are asked for again: wherever an argument was one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol, cast

import numpy as np

from .contract import OPERATIONS, Backend

Place = tuple[Any, ...]  # what a key is asked for with


class Keys(Protocol):
    """Where a pass has the keys of its dropout masks from; each is another number."""

    def key(self, *place: Any) -> int: ...


Pass = Callable[[Backend, Any], None]  # what calls a backend's operations, with keys from the second argument


@dataclass
class Launch:
    """A function and what it is called with."""

    function: Callable[..., Any]
    arguments: list[Any]
    options: dict[str, Any]


class Tape:
    """One kind of pass on a backend: `run` runs it, records it, or plays it.

    All passes that one tape is given must make the same calls, but for the keys. `kept` is not touched: objects that
    must not go, and make room for others at the same address, while the tape is looked up by theirs.
    """

    def __init__(self, backend: Backend, *kept: object) -> None:
        self.kept = (backend, *kept)
        self._backend = backend
        self._conditions: Callable[[], object] = getattr(backend, "conditions", lambda: 0)
        self._play: Callable[[Tape], None] = getattr(backend, "play", Tape.play)
        self._under: object = None  # the conditions after the last pass
        self.calls: list[list[Launch]] = []  # of each operation; empty until recorded
        self._keyed: dict[Place, list[tuple[Any, Any]]] = {}  # (list or dict of arguments, place in it) of each key

    def run(self, make: Pass, keys: Keys | None) -> None:
        """Make a pass, or what comes to the same."""
        if self._conditions() != self._under:
            self._clear()
            make(self._backend, keys)
            self._under = self._conditions()
        elif not self.calls:
            self._record(make, keys)
        else:
            self._renew(keys)
            self._play(self)

    def play(self) -> None:
        """Call what was recorded."""
        for launches in self.calls:
            for launch in launches:
                launch.function(*launch.arguments, **launch.options)

    def _clear(self) -> None:
        self.calls, self._keyed = [], {}

    def _record(self, make: Pass, keys: Keys | None) -> None:
        places: dict[int, Place] = {}

        def key(*place: Any) -> int:
            value = cast(Keys, keys).key(*place)
            places[value] = place
            return value

        try:
            make(self._recording(), keys and SimpleNamespace(key=key))
        except BaseException:
            self._clear()  # half a pass is none
            raise
        if self._conditions() != self._under:  # it was another thread's turn, say
            self._clear()
        for launch in (launch for launches in self.calls for launch in launches):
            for holder in (launch.arguments, launch.options):
                for at, value in enumerate(holder) if isinstance(holder, list) else holder.items():
                    if isinstance(value, int | np.uint64) and int(value) in places:
                        self._keyed.setdefault(places[int(value)], []).append((holder, at))

    def _recording(self) -> Backend:
        """The backend, with all calls of its operations noted."""
        launches = getattr(self._backend, "launches", None)

        def recorded(function: Callable[..., Any]) -> Callable[..., None]:
            def call(*arguments: Any, **options: Any) -> None:
                if launches is None:
                    function(*arguments, **options)
                    behind = getattr(function, "__wrapped__", function)  # the contract's checks
                    self.calls.append([Launch(behind, list(arguments), options)])
                else:
                    with launches() as made:
                        function(*arguments, **options)
                    self.calls.append(made)

            return call

        operations = {name: recorded(getattr(self._backend, name)) for name in OPERATIONS}
        return cast(Backend, SimpleNamespace(name=self._backend.name, **operations))

    def _renew(self, keys: Keys | None) -> None:
        """Put the keys of this pass in the place of those before."""
        for place, holders in self._keyed.items():
            key = cast(Keys, keys).key(*place)
            for holder, at in holders:
                holder[at] = type(holder[at])(key)
