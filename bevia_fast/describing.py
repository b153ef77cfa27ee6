"""How objects show themselves: as HTML, where a notebook asks for it, and options in help()."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any


def table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return an HTML table with a title; the first column is the names. What a cell contains is shown as it is."""
    top = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr>" if header else ""
    body = "".join(
        f'<tr><th style="text-align: left">{escape(str(first))}</th>'
        + "".join(f'<td style="text-align: left">{escape(str(cell))}</td>' for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table><caption>{escape(title)}</caption>{top}{body}</table>"


def describe_fields(kind: Any) -> None:
    """Let help() show what the fields of a dataclass mean, as the documentation of its constructor.

    Python does not keep the docstrings below fields, so they are read from the source; without it, nothing changes.
    """
    with contextlib.suppress(OSError, TypeError, SyntaxError, ValueError):
        meanings = field_docstrings(kind)
        if not meanings:
            return
        names = {each.name for each in fields(kind)}
        parts = []
        for each in fields(kind):
            text = meanings.get(each.name, "")
            part: Any = each.default_factory
            if not text and isinstance(part, type):
                text = f"{part.__name__}: {inspect.getdoc(part)}"
            parts.append("\n".join([each.name, *(f"    {line}" for line in _in_python(text, names).splitlines())]))
        kind.__init__.__doc__ = "\n".join(parts)


def field_docstrings(kind: type) -> dict[str, str]:
    """Return the string below each field of a dataclass, also of those that it inherits; none without the source."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if is_dataclass(part):
            with contextlib.suppress(OSError, TypeError, SyntaxError):
                found |= _docstrings_in(textwrap.dedent(inspect.getsource(part)))
    return found


def _docstrings_in(source: str) -> dict[str, str]:
    [body] = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node, below in itertools.pairwise(body):
        text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, str):
            found[node.target.id] = inspect.cleandoc(text)
    return found


def _in_python(text: str, names: set[str]) -> str:
    """Return a help text of the command line with --this-field as this_field."""

    def named(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        return name if name in names else option[0]

    return re.sub(r"--([a-z][a-z0-9-]*)", named, text)
