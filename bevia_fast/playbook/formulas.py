"""Formulas between dollar signs, as MathML, which browsers show without a script or a font of their own.

Markdown would take an underscore in a formula for emphasis. So formulas are taken out before it sees the text, and put
back afterwards.
"""

from __future__ import annotations

import re

CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
OPEN, CLOSE = "\ue000", "\ue001"  # characters for private use, which no text of ours contains
PLACE = re.compile(f"{OPEN}(\\d+){CLOSE}")


def take_out(text: str) -> tuple[str, list[str]]:
    """Return a Markdown text with a mark in place of each formula, and the formulas as MathML.

    What looks like a formula inside of code stays. Raises ImportError without latex2mathml.
    """
    from latex2mathml.converter import convert

    found: list[str] = []

    def mark(match: re.Match[str]) -> str:
        block = match[1] is not None
        mathml = convert(match[1] or match[2], display="block" if block else "inline")
        found.append(mathml.replace(r"\_", "_"))  # which TeX needs inside of a name, and the converter leaves
        return f"{OPEN}{len(found) - 1}{CLOSE}"

    parts = CODE.split(text)  # text, code, text, code, ..., text
    parts[::2] = [FORMULA.sub(mark, part) for part in parts[::2]]
    return "".join(parts), found


def put_back(html: str, formulas: list[str]) -> str:
    """Return a page with each mark replaced by its formula."""
    return PLACE.sub(lambda match: formulas[int(match[1])], html)
