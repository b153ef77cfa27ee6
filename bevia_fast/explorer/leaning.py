"""Scripts and style sheets without what only their authors need: comments, indentation, spaces around signs.

This is no parser. It works line by line, and leaves every line alone in which it could be wrong, because it has a
regular expression, several templates, or one that does not end in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

CAST = re.compile(r"/\*\* @type \{.*?\} \*/ ?")  # the comment that tells tsc the type of an expression
DELICATE = re.compile(r"[\"'`/]")
QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)""")
BESIDE = re.compile(r"^([^\"'`/]+?) *// .*$")  # a comment behind code
# without + and -, since a + +b is not a++b, and without ! and <, since <!-- begins a comment
SPACED = re.compile(r" ?([=>?:;,{}()\[\]&|*]) ?")
DECLARED = re.compile(r"(?<=[\w-]): ")
ENDS = ("{", "}", ";", ",")  # of lines of a style sheet that need no line end


def lean_script(text: str) -> str:
    """Return a script without comments of their own lines, casts, indentation, and spaces around signs.

    Lines inside of a template, from one backtick to the next, stay as they are. Raises ValueError for code beside the
    end of a block comment.
    """
    kept = (line if whole else _squeezed(CAST.sub("", line.lstrip())) for line, whole in _lines(text))
    return "\n".join(kept) + "\n"


def lean_style(text: str) -> str:
    """Return a style sheet without comments of their own lines, indentation, and spaces around signs.

    Raises ValueError for code beside the end of a comment.
    """
    kept = []
    for line, _ in _lines(text):
        line = line.strip()
        if not DELICATE.search(line):
            line = DECLARED.sub(":", line).replace(" {", "{").replace(", ", ",")
        kept.append(line if line.endswith(ENDS) else line + "\n")
    return "".join(kept)


def _squeezed(line: str) -> str:
    """Return a line without spaces around signs, but in its strings and its template."""
    parts = QUOTED.split(BESIDE.sub(r"\1", line))
    nested = line.count("`") > 2  # perhaps a template inside of another
    if nested or any(map(DELICATE.search, parts[::2])):  # a regular expression, a quotient, or half a string
        return line
    return "".join(part if number % 2 else SPACED.sub(r"\1", part) for number, part in enumerate(parts))


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the lines that are not empty and no comments, and whether they begin inside of a template."""
    comment = template = False
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.strip()
        if not template and (comment or bare.startswith("/*")):
            if "*/" in bare.removesuffix("*/"):
                raise ValueError(f"line {number} has code beside a comment: {bare}")
            comment = not bare.endswith("*/")
        elif template or (bare and not bare.startswith("//")):
            yield line, template
            template ^= line.count("`") % 2 == 1
