"""tyro, with its errors as one sentence and its pages in colors that can be read."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import Any, TextIO

import tyro
from tyro.conf import OmitArgPrefixes

from ..errors import UserError

FAINT = re.compile(r"\x1b\[(37;)?2m")  # what tyro writes before text that is dim, or white and dim


def parsed(wanted: Any, prog: str, words: list[str], description: str | None = None) -> Any:
    """Parse words with tyro. Raises UserError, or SystemExit after printing help."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(sys.stdout and _Legible(sys.stdout)):
            return tyro.cli(wanted, prog=prog, args=words, description=description, config=(OmitArgPrefixes,))
    except SystemExit as request:
        if request.code in (0, None):
            raise
        raise UserError(_one_sentence(errors.getvalue())) from None


class _Legible:
    """Standard output, except that no text is dim or white, which cannot be read on a light background."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(FAINT.sub("\x1b[m", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _one_sentence(box: str) -> str:
    """Return the error in one line, without tyro's box around it: a title, the error, a rule, advice."""
    text: list[str] = []
    for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()[1:]):
        rule = re.fullmatch(r"[─-]*", line)
        if rule and text:
            break
        if not rule:
            text.append(line)
    sentence = " ".join(" ".join(text or [box]).split())
    missing = re.match(r"Missing from (.+?): (\S+) (?:[A-Z]+ )?(.+?) \(required\)", sentence)
    if missing:
        return "{} needs {}: {}".format(*missing.groups())
    return sentence if sentence.endswith((".", ")")) else sentence + "."
