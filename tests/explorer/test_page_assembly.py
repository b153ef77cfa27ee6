"""The page is one file: what is put together, and what is left out of its scripts."""

from __future__ import annotations

import re

from bevia_fast.explorer.assembly import assemble, asset, scripts
from bevia_fast.explorer.encoding import encode
from bevia_fast.explorer.leaning import lean_style

LIMIT = 150_000  # bytes of JavaScript and CSS


def test_scripts_and_style_are_small() -> None:
    assert sum(len(text.encode()) for text in (*scripts(), lean_style(asset("style.css")))) <= LIMIT


def test_every_script_and_the_style_are_in_the_policy() -> None:
    html = assemble({"tensors": {}}, encode([])[1])
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', html)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == len(scripts()) + 1
    assert "unsafe" not in policy
    assert html.index("<meta http-equiv") < html.index("<style>") < html.index("<script>")


def test_nothing_is_fetched_from_elsewhere() -> None:
    """No address of another place is anywhere in the page, except the names of XML."""
    html = assemble({"tensors": {}}, encode([])[1])
    assert set(re.findall(r"https?://[^\s\"'`<)]*", html)) <= {"http://www.w3.org/2000/svg"}
    no_icon = '<link rel="icon" href="data:,">'  # otherwise, browsers ask for one
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b", html.replace(no_icon, ""))
    assert not re.search(r"(?<!{)\bimport\s*\(|\bfetch\(|XMLHttpRequest|WebSocket", html)
