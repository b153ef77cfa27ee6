"""What can go wrong in a way that the user can mend. The message is one sentence; the command line prints just that."""

from __future__ import annotations


def escaped(text: str, kept: str = "") -> str:
    """Text without characters that cannot be seen, or that would move a terminal's cursor or worse, but for those
    `kept`."""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def shown(value: object, most: int = 200) -> str:
    """Something that was read from a file and may be anything, for a message of one line."""
    text = escaped(str(value)[: most + 1])
    return text if len(text) <= most else text[:most] + "..."


class UserError(Exception):
    """Something asked for cannot be done; nothing was written. The command line ends with exit code 2.

    Not a ValueError, for tyro words those anew when they come from a dataclass that it fills.
    """


class ConfigError(UserError):
    """An option, or a combination of options, that cannot work."""


class DataError(UserError):
    """A text that cannot be trained on, or a prompt that the model cannot read."""


class CheckpointError(UserError):
    """A model file or run folder that cannot be read or written."""


class DamagedFile(CheckpointError):
    """A file that is not as it was written: nobody can read it any more."""


class StoppedRun(Exception):
    """A training run, or a check, ended because its numbers went wrong, or the results of a run are not all on the
    disk. The command line ends with exit code 1."""
