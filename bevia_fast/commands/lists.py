"""Several values of an option: `plan --ctx 1024 2048 --batch 4 8` is four plans."""

from __future__ import annotations

import itertools

from ..errors import UserError
from .fields import Option
from .groups import NOT_PLANNED
from .words import is_option

MOST_PLANS = 100


def split(words: list[str], known: dict[str, Option]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the words of a command line without the options that have several values, and these with their values.

    Only numbers and choices can be lists; what follows them otherwise is a text to train on. Raises UserError for a
    list of an option that does not change a plan, and for a value that is there twice.
    """
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    place = 0
    while place < len(words):
        word = words[place]
        name = word.replace("_", "-")
        option = known.get(name)
        place += 1
        if word == "--":
            return rest + words[place - 1 :], lists
        values = []
        if option is not None and not option.many and not option.positional and option.kind is not bool:
            while place < len(words) and _can_be(words[place], option):
                values.append(words[place])
                place += 1
        if len(values) < 2:
            rest += [word, *values]
            continue
        if option is not None and option.field in NOT_PLANNED:
            raise UserError(f"{name} takes one value, because it does not change a plan.")
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UserError(f"{name} has {twice} twice; name each value once.")
        if name in lists:
            raise UserError(f"{name} is given twice; give it once, with all values.")
        lists[name] = values
    return rest, lists


def combinations(lists: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Return all combinations of values, those of the last option varying first. Raises UserError for too many."""
    found = list(itertools.islice(itertools.product(*lists.values()), MOST_PLANS + 1))
    if len(found) > MOST_PLANS:
        raise UserError(f"These lists make more than {MOST_PLANS} plans; name fewer values.")
    return found


def _can_be(word: str, option: Option) -> bool:
    """Return whether a word can be a value of an option: a number or one of its choices."""
    if is_option(word):
        return False
    if option.kind in (int, float):
        return word.lstrip("+-.")[:1].isdigit()
    return word in option.choices
