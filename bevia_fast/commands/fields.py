"""The options of a command, as its dataclass declares them: their names, types and descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Positional, Suppress

from ..naming import flag


@dataclass(frozen=True)
class Option:
    """One option of a command: a field of its dataclass, or of a dataclass inside that."""

    field: str
    option: str
    """Its name on the command line, such as --min-lr."""
    kind: Any
    """int, float, bool or str; of the elements, if there are many."""
    choices: tuple[str, ...]
    """What it can be, if it is one of a few words."""
    many: bool
    """Whether it takes any number of values."""
    positional: bool
    """Whether it is given without its name."""
    hint: Any
    """The type, with everything that tyro shall know of it."""


def command_options(kind: type) -> dict[str, Option]:
    """Return the options of a command by their names on the command line, in the order of declaration."""
    return {option.option: option for option in _options(kind, ())}


def _options(kind: type, left_out: tuple[str, ...]) -> list[Option]:
    found: list[Option] = []
    for name, hint in own_fields(kind):
        if is_dataclass(bare(hint)):
            found += _options(bare(hint), left_out)
        else:
            found.append(_option(name, hint))
    return found


def own_fields(kind: type) -> list[tuple[str, Any]]:
    """Return the names and types of a dataclass's fields, without those that the command line does not have."""
    hints = get_type_hints(kind, include_extras=True)
    return [(field.name, hints[field.name]) for field in fields(kind) if Suppress not in _notes(hints[field.name])]


def bare(hint: Any) -> Any:
    """Return a type without its annotations."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _notes(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _option(name: str, hint: Any) -> Option:
    named = [note.name for note in _notes(hint) if getattr(note, "name", None)]
    kind, many = bare(hint), get_origin(bare(hint)) in (tuple, Sequence)
    if many:
        kind = get_args(kind)[0]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    option = f"--{named[0]}" if named else flag(name)
    return Option(name, option, str if choices else kind, choices, many, Positional in _notes(hint), hint)
