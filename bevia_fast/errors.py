"""Errors that the user can fix. The message is one sentence, and the command line prints only that."""

from __future__ import annotations


def escaped(text: str, kept: str = "") -> str:
    """Return text with unprintable characters escaped, since they could control a terminal, except those in `kept`."""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def shown(value: object, most: int = 200) -> str:
    """Return something read from a file, which may be anything, as at most `most` printable characters."""
    text = escaped(str(value)[: most + 1])
    return text if len(text) <= most else text[:most] + "..."


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the singular or plural, such as "1 layer" or "4 layers"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def reason(error: BaseException) -> str:
    """Return what an exception of any class says, on one line without a full stop; its class if it says nothing."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # a class whose __str__ is wrong
        text = ""
    return shown(text.rstrip(".") or type(error).__name__, 300)


class UserError(Exception):
    """A request that cannot be carried out; nothing was written. The command line exits with code 2.

    It is not a ValueError, because tyro rewords those when a dataclass raises them.
    """


class ConfigError(UserError):
    """An invalid option or combination of options."""


class DataError(UserError):
    """A text that cannot be trained on, or a prompt that the model cannot read."""


class CheckpointError(UserError):
    """A model file or a run folder that cannot be read or written."""


class DamagedFile(CheckpointError):
    """A file whose contents changed after it was written."""


class StoppedRun(Exception):
    """A training run or a check that failed: its numbers are wrong, or its results are not all on disk.

    The command line exits with code 1.
    """
