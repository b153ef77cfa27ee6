"""The words of a command line, made regular before they are parsed; what cannot be right is refused in one sentence.

    train book.txt --steps 1e3 --preset seed --out -x   ->   --steps=1000 --preset=tiny --out=-x --data book.txt

So a text and a prompt need no option, a number can be written as people write it, and the sentence about a wrong value
says what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from ..config import OLD_PRESETS, PRESETS, preset_name
from ..errors import UserError, shown
from .fields import Option
from .hints import unknown_option

SWITCHES = ("true", "false", "yes", "no", "on", "off")
Owner = Callable[[str], str]
HELP = {"-h", "--help"}
LARGEST_EXPONENT = 30  # of an integer; every option's limit is far below
LOOSE = ("--data", "--prompt")  # what a word without an option may be, if the command has that option


def asks_for_help(words: list[str], known: dict[str, Option]) -> bool:
    """Return whether -h or --help is among the words, other than as a value: `--prompt -h` is a text."""
    before = ""
    for word in words:
        takes = before in known and known[before].kind is not bool and not known[before].many
        if word == "--help" or (word in HELP and not takes):
            return True
        if word == "--":
            return False
        before = word
    return False


def regular(words: list[str], known: dict[str, Option], asked: str, owner: Owner) -> list[str]:
    """Return the words that follow the command `asked`, whose options are `known`, as said above.

    `owner` returns the command that has an option, for a word about one that this command does not have.
    Raises UserError for an option that does not exist, a value that its option cannot take, and a word too many.
    """
    loose, named = _sorted(words, known, lambda word: unknown_option(word, known, asked, owner))
    positional = [option for option in known.values() if option.positional]
    places = len(loose) if any(option.many for option in positional) else len(positional)
    front = [f"./{word}" if word.startswith("-") and word != "-" else word for word in loose[:places]]
    for option, word in zip(positional, front, strict=False):
        _value(option, word)
    if loose[places:]:
        _place(loose[places:], named, known, asked)
    back: list[str] = []
    for name, values in named.items():
        if name not in known or known[name].kind is bool:
            back.append(name)
        elif known[name].many:
            back += [name, *values]
        else:
            back += [f"{name}={value}" for value in values]
    return front + back


def _sorted(
    words: list[str], known: dict[str, Option], unknown: Callable[[str], str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the words that belong to no option, and each option with its values.

    `unknown` returns what is wrong with an option that is not `known`.
    """
    loose: list[str] = []
    named: dict[str, list[str]] = {}
    waiting: str = ""  # the option that takes the next word
    rest = iter(words)
    for word in rest:
        if word == "--":
            loose += rest
        elif is_option(word) and not (waiting and not known[waiting].many and not word.startswith("--")):
            _refuse_missing(waiting, known, named)
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            flag = "--" + name.removeprefix("--no-") if name.startswith("--no-") else name
            option = known.get(name)
            twice = {name, flag, "--no-" + flag[2:]} & set(named)
            if twice and not (option is not None and option.many):  # only the last one would count, in silence
                raise UserError(f"{flag} is given twice; give it once.")
            if flag in known and known[flag].kind is bool:
                if equals:
                    raise UserError(f"{name} takes no value; --no-{flag[2:]} switches it off.")
                named[name], waiting = [], ""
            elif option is None or option.positional:
                raise UserError(unknown(word))
            elif option.many:
                named.setdefault(name, []).extend([_value(option, value)] if equals else [])
                waiting = name
            else:
                named[name] = [_value(option, value)] if equals else []
                waiting = "" if equals else name
        elif waiting:
            named[waiting].append(_value(known[waiting], word))
            if not known[waiting].many:
                waiting = ""
        else:
            last = next(reversed(named), "")
            if last in known and known[last].kind is bool and word.lower() in SWITCHES:
                raise UserError(f"{last} takes no value; --no-{last[2:]} switches it off.")
            loose.append(word)
    _refuse_missing(waiting, known, named)
    return loose, named


def is_option(word: str) -> bool:
    """Return whether a word names an option: it begins with - and is neither a number, nor a text, nor - alone."""
    name = word.partition("=")[0]
    return re.fullmatch(r"-\S+", name) is not None and not re.fullmatch(r"-(\.?\d.*|inf|nan)", word)


def _refuse_missing(name: str, known: dict[str, Option], named: dict[str, list[str]]) -> None:
    if name and not named[name] and not known[name].many:
        free = known[name].kind is str and not known[name].choices
        escape = f", such as {name}=--x if the value begins with --" if free else ""
        raise UserError(f"{name} needs a value{escape}.")


def _place(loose: list[str], named: dict[str, list[str]], known: dict[str, Option], asked: str) -> None:
    """Give the words that belong to no option to the one that they most likely mean."""
    name = next((name for name in LOOSE if name in known), "")
    if not name:
        raise UserError(f"Unexpected argument {loose[0]!r}; see {asked} --help.")
    if known[name].many:
        named[name] = [_value(known[name], word) for word in loose] + named.get(name, [])
    elif len(loose) == 1 and name not in named:
        named[name] = loose
    elif name in named:
        raise UserError(f"Unexpected argument {loose[0]!r} beside {name}; quote a text of several words.")
    else:
        raise UserError(f"Unexpected argument {loose[1]!r}; quote a text of several words, as in {name} 'Once upon'.")


# --------------------------------------------------------------------------------------------------------------- values


def _value(option: Option, word: str) -> str:
    """Return a value as Python writes it. Raises UserError if the option cannot take it."""
    if option.many and word.startswith("-") and word != "-":  # tyro would take it for an option
        word = {"data": "./-", "glob": "[-]"}.get(option.field, "-") + word[1:]
    name = option.field.upper() if option.positional else option.option
    if option.choices:
        if set(option.choices) == set(PRESETS):
            return preset_name(OLD_PRESETS.get(word, word))
        if word not in option.choices:
            raise UserError(f"{name} is {shown(repr(word), 40)}; it must be one of {', '.join(option.choices)}.")
    elif option.kind is int:
        return _integer(name, word)
    elif option.kind is float:
        try:
            float(word)
        except ValueError:
            raise UserError(f"{name} is {shown(repr(word), 40)}; it must be a number.") from None
    return word


def _integer(name: str, word: str) -> str:
    """Return an integer's digits; it may be written as 1000, 1_000, 1,000 or 1e3."""
    plain = word.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", word) else word
    try:
        number = Decimal(plain)
    except InvalidOperation:
        number = Decimal("nan")
    if number.is_finite() and number.adjusted() <= LARGEST_EXPONENT and number == number.to_integral_value():
        return str(int(number))
    if number.is_finite() and number.adjusted() > LARGEST_EXPONENT:
        raise UserError(f"{name} is {shown(word, 40)}; that is too large.")
    raise UserError(f"{name} is {shown(repr(word), 40)}; it must be an integer.")
