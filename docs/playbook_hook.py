"""MkDocs calls these functions for each page: formulas between dollar signs become MathML, which needs no script."""

from __future__ import annotations

from typing import Any

from bevia_fast.playbook.formulas import put_back, take_out

FORMULAS: dict[str, list[str]] = {}  # of each page, between the two calls


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take the formulas out of a chapter."""
    if not page.file.src_uri.startswith("playbook/"):
        return markdown
    text, FORMULAS[page.file.src_uri] = take_out(markdown)
    return text


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Put them back into the page."""
    return put_back(html, FORMULAS.get(page.file.src_uri, []))
