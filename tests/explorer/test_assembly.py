"""The page is one file: what is put together, and what is left out of its scripts."""

from __future__ import annotations

import re

import pytest

from bevia_fast.explorer.assembly import assemble, asset, lean, scripts
from bevia_fast.explorer.encoding import encode

LIMIT = 150_000  # bytes of JavaScript and CSS


def test_comments_and_indentation_are_left_out() -> None:
    text = '''
"use strict";

// A comment.
(() => {
  /**
   * A description.
   */
  const url = "https://example.org";  // stays
  /* one line */
  return `a // b ${url}`;
})();
'''
    wanted = '"use strict";\n(() => {\nconst url = "https://example.org";  // stays\nreturn `a // b ${url}`;\n})();\n'
    assert lean(text) == wanted
    assert lean(wanted) == wanted


def test_a_template_stays_as_it_is() -> None:
    text = "  f(`a\n\n  // b ${\n    c}\n  /* d `);\n  // e\n  g();\n"
    assert lean(text) == "f(`a\n\n  // b ${\n    c}\n  /* d `);\ng();\n"


@pytest.mark.parametrize("text", ["/* a */ b();", "/*\n a\n*/ b();"])
def test_code_beside_a_comment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d has code beside a comment: "):
        lean(text)


def test_scripts_and_style_are_small() -> None:
    assert sum(len(text.encode()) for text in (*scripts(), lean(asset("style.css")))) <= LIMIT


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
