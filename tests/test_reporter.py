"""Several reporters at once."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.config import TrainConfig
from bevia_fast.reporter import Reporter, Reporters

EVENTS = {name: function for name, function in vars(Reporter).items() if not name.startswith("_")}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "start": (TrainConfig(),), "fact": ("text", "short"), "compiling": ("adamw", 1, 2), "compiled": (),
    "step": ({"step": 1},), "sample": (1, "text"), "note": ("careful",), "interrupted": (), "saved": (1, 2, 3.0, 4.0),
    "filmed": (1, 2, 3.0, 4.0), "budget": (60.0,), "best": (3, "2.0 at the end"), "end": (Path("run"), 2),
}  # fmt: skip


class Noting(Reporter):
    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        for name in ARGUMENTS:
            setattr(self, name, lambda *arguments, name=name: self.events.append((name, arguments)))
        self.counted: list[int] = []

    def counting(self, what: str, total: int) -> Any:
        import contextlib

        self.events.append(("counting", (what, total)))
        return contextlib.nullcontext(self.counted.append)


def test_every_event_reaches_every_reporter() -> None:
    some = [Noting(), Noting()]
    all_of_them = Reporters(some)
    for name, arguments in ARGUMENTS.items():
        getattr(all_of_them, name)(*arguments)
    with all_of_them.counting("reading", 100) as tell:
        tell(7)
    for each in some:
        assert each.events == [*ARGUMENTS.items(), ("counting", ("reading", 100))]
        assert each.counted == [7]


def test_no_event_is_forgotten() -> None:
    assert EVENTS.keys() == {*ARGUMENTS, "counting"}
    for name, function in EVENTS.items():
        assert inspect.signature(getattr(Reporters, name)).parameters == inspect.signature(function).parameters
        assert function.__doc__
        assert getattr(Reporters, name) is not function


def test_all_are_told_of_the_end() -> None:
    class Failing(Reporter):
        def end(self, folder: Path | None, interrupted: int) -> None:
            raise ValueError("closed")

    order: list[Reporter] = []
    some = [Noting(), Noting()]
    for each in some:
        each.end = lambda folder, interrupted, each=each: order.append(each)  # type: ignore[method-assign,misc]
    Reporters(some).end(None, 0)
    assert order == some

    last = Noting()
    with pytest.raises(ValueError, match="closed"):
        Reporters([Failing(), last]).end(None, 0)
    assert last.events == [("end", (None, 0))]
