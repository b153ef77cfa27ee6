"""All chapters as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path
from typing import Any

from ..errors import UserError
from .chapters import Chapter, folder, read_chapters
from .formulas import put_back, take_out

NEEDED = "The page needs packages that are not installed; install them with: pip install 'bevia-fast[playbook]'"
LINK = re.compile(r"\]\(([\w-]+)\.md(?:#[\w-]+)?\)")  # to another chapter
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[\w./-]+\)")  # to another document, which is not in the file


def build() -> str:
    """Return the page. Raises UserError if the packages for it are missing, or the chapters."""
    try:
        import latex2mathml.converter  # noqa: F401
        from markdown_it import MarkdownIt
        from pygments.formatters import HtmlFormatter
    except ImportError:
        raise UserError(NEEDED) from None
    chapters = _chapters()
    markdown = MarkdownIt("commonmark", {"html": True, "highlight": _highlighted}).enable("table")
    bodies = [_body(chapter, markdown) for chapter in chapters]
    entries = [f'<li><a href="#{chapter.name}">{escape(chapter.title)}</a></li>' for chapter in chapters]
    colors = "\n".join(
        f"@media (prefers-color-scheme: {scheme}) {{ {HtmlFormatter(style=style).get_style_defs('.code')} }}"
        for scheme, style in (("light", "tango"), ("dark", "github-dark"))
    )
    return PAGE.format(style=(Path(__file__).parent / "page.css").read_text("utf-8"), colors=colors,
                       contents="\n".join(entries), body="\n".join(bodies))  # fmt: skip


def _chapters() -> list[Chapter]:
    try:
        return read_chapters()
    except OSError as error:
        raise UserError(f"The chapters are not in {folder()}; install bevia-fast again ({error.strerror}).") from None


def _body(chapter: Chapter, markdown: Any) -> str:
    """Return a chapter as a section."""
    text = LINK.sub(lambda link: f"](#{link[1]})", OUTSIDE.sub(r"\1", chapter.text.replace(' markdown="1"', "")))
    text, formulas = take_out(text)
    html = put_back(markdown.render(text), formulas)
    html = re.sub(r'src="figures/([\w-]+\.svg)"', lambda source: f'src="{_picture(source[1])}"', html)
    return f'<section id="{chapter.name}">\n{html}</section>'


def _picture(name: str) -> str:
    """Return a picture as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode((folder() / "figures" / name).read_bytes()).decode()


def _highlighted(code: str, language: str, _: str) -> str:
    """Return code with colors, without the element around it."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    lexer = get_lexer_by_name({"py": "python", "sh": "bash"}.get(language, language or "text"))
    return f'<span class="code">{highlight(code, lexer, HtmlFormatter(nowrap=True))}</span>'


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>The playbook of bevia-fast</title>
<style>
{style}
{colors}
</style>
</head>
<body>
<nav aria-label="Chapters"><p>bevia-fast</p><ol start="0">
{contents}
</ol></nav>
<main>
{body}
</main>
</body>
</html>
"""
