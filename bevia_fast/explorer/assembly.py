"""The page as one file: template, style, scripts and data, and a policy that lets nothing else in.

What a run brings along, such as its alphabet, may contain anything. It reaches the page in JSON inside a script element
that no browser executes, with `<` escaped, so that nothing in it can end the element.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from .leaning import lean_script, lean_style

# In the order in which they run: each adds one object to the global `Bevia`, from the ones before it. A name without an
# ending is a folder.
NUMERICS = ("data.js", "rng.js", "sampling.js", "kernels.js", "forward.js")
SCRIPTS = (*NUMERICS, "dom.js", "glyphs.js", "parts", "state.js", "views", "tour.js", "page.js")
PIECES = "pieces.js"  # after the others of its kind, in the page of a model whose tokens are no characters
MARKS = ("policy", "style", "header", "tensors", "scripts")


def assemble(header: dict[str, Any], tensors: str) -> str:
    """Return the page for a header, and tensors in base64 (see `encoding`)."""
    style, programs = lean_style(asset("style.css")), scripts((header.get("pieces") or {}).get("unit", ""))
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, programs))}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "header": f'<script type="application/json" id="header">{inert(header)}</script>',
        "tensors": f'<script type="application/octet-stream" id="tensors">{tensors}</script>',
        "scripts": "\n".join(f"<script>{program}</script>" for program in programs),
    }
    page = asset("page.html")
    for name in MARKS:
        before, mark, after = page.partition(f"<!-- {name} -->")
        if not mark:
            raise ValueError(f"page.html has no mark for {name}")
        page = before + parts[name] + after
    return page


def inert(value: Any) -> str:
    """Return JSON in ASCII that can stand in a script element: no `<`, and so no `</script>` and no `<!--`."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def scripts(unit: str = "") -> list[str]:
    """Return the text of each of the page's scripts, in the order in which they run, without its comments.

    `unit` is what tokens are called that are no characters; their script is one of them then.
    """
    found = []
    first = SCRIPTS.index("parts")
    for name in (*SCRIPTS[:first], *([PIECES] if unit else []), *SCRIPTS[first:]):
        place = files(__package__) / "page" / name
        if place.is_dir():
            inside = sorted((each for each in place.iterdir() if each.name.endswith(".js")), key=lambda each: each.name)
            found += [each.read_text("utf-8") for each in inside]
        elif place.is_file():
            found.append(place.read_text("utf-8"))
    found = [lean_script(program) for program in found]
    return [_called(program, unit) for program in found] if unit else found


def _called(program: str, unit: str) -> str:
    """Return a script whose sentences speak of units instead of characters. In code, no such word comes before it."""

    def instead(match: re.Match[str]) -> str:
        return match[0] if match[1] in ("const", "return", "of", "has") else f"{match[1]} {unit}{match[2]}"

    program = re.sub(r"(\w+|\}|\[next) character(s?)\b", instead, program)
    return re.sub(r"(?<=[`\". ])Character(s?)(?=[`\" ])", rf"{unit.capitalize()}\1", program)


@cache
def asset(name: str) -> str:
    """Return the text of a file in `page/`."""
    return (files(__package__) / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
