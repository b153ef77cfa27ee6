"""Commands and names of files as they can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
import subprocess

_ESCAPES = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\\"): "\\\\", ord("'"): "\\'"}


def shell_path(path: str | os.PathLike[str]) -> str:
    """Return a path that no program takes for an option: -run becomes ./-run."""
    name = os.fspath(path)
    return os.path.join(os.curdir, name) if name.startswith("-") and name != "-" else name


def shell_line(*words: str) -> str:
    """Return words as one line for a shell: quoted where that is needed, with the system's rules."""
    return subprocess.list2cmdline(words) if os.name == "nt" else " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Return a word for a POSIX shell.

    What a terminal does not show as it is, such as a newline or a byte that is not UTF-8, is written as an escape
    sequence, which bash, zsh and ksh read in $'...'.
    """
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(_ESCAPES.get(byte, _escape(byte)) for byte in os.fsencode(word)) + "'"


def _escape(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
