"""How messages name options and commands: as the reader would write them.

What is `--top-k 5` on the command line is `top_k=5` in Python. A message does not spell out either: it calls `option`
and `command`, which know where the request came from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from .shell import shell_line, shell_path

_typed: ContextVar[bool] = ContextVar("typed", default=False)  # whether the request was typed as a command


@contextlib.contextmanager
def on_the_command_line() -> Iterator[None]:
    """Inside this context, messages name options as the command line has them."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def option(name: str, value: Any = None) -> str:
    """Return an option, with its value unless that is None: "--top-k 5", or from Python "top_k=5".

    `name` is the field of the configuration. A flag is "--recompute" or "--no-bias", or from Python "bias=False"; a
    tuple is "--glob '*.md' '*.rst'".
    """
    if not _typed.get():
        return name if value is None else f"{name}={value!r}"
    return flag(name) if value is None else shell_line(*_words(name, value))


def command(name: str, *places: str | os.PathLike[str], **options: Any) -> str:
    """Return a command that can be pasted, whatever the names of files contain.

    That is "bevia-fast generate runs/1 --seed 2", or from Python "generate('runs/1', seed=2)".
    """
    if not _typed.get():
        given = [repr(str(place)) for place in places]
        given += [f"{key}={_plain(value)!r}" for key, value in options.items()]
        return f"{name}({', '.join(given)})"
    words = ["bevia-fast", name, *map(shell_path, places)]
    for key, value in options.items():
        words += _words(key, shell_path(value) if isinstance(value, os.PathLike) else value)
    return shell_line(*words)


def resuming(run: str | os.PathLike[str], **options: Any) -> str:
    """Return the command that resumes a run, with changes to its options; see `command`."""
    if _typed.get():
        return command("train", resume=run, **options)
    return f"train({command('resume', run, **options)})"


def flag(name: str) -> str:
    """Return the name of a field's command-line option."""
    return "--" + name.replace("_", "-")


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), *map(str, value)] if isinstance(value, tuple) else [flag(name), str(value)]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, os.PathLike) else value
