"""Options that are given more than once: tyro would keep only the last one, in silence."""

from __future__ import annotations

from ..errors import UserError

LISTS = ("--data", "--glob")  # their values add up


def join_repeats(arguments: list[str]) -> list[str]:
    """Return the arguments with the values of all --data behind the first one, and those of --glob likewise.

    Raises UserError for any other option that is given twice.
    """
    groups: dict[str, list[str]] = {"": []}  # an option -> it and what follows, up to the next option
    current = groups[""]
    for argument in arguments:
        if not argument.startswith("--") or argument == "--":
            current.append(argument)
            continue
        written, equals, value = argument.partition("=")
        name = written.replace("_", "-")
        option = "--" + name.removeprefix("--no-") if name.startswith("--no-") else name  # --no-tie is about --tie
        if option not in groups:
            current = groups[option] = [argument]
        elif option in LISTS:
            current = groups[option]
            current.extend([value] if equals else [])
        else:
            raise UserError(f"{option} is given twice; give it once.")
    return [argument for group in groups.values() for argument in group]
