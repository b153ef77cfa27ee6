"""What a run brings along is text and nothing else, and the page asks for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, small_run

from bevia_fast.explorer.assembly import assemble, inert
from bevia_fast.explorer.encoding import encode
from bevia_fast.explorer.exploring import make_page

HOSTILE = {
    "the end of a script": "</script><script>window.bad = 1</script>",
    "the end of a script, in other letters": "</SCRIPT ><img src=x onerror=bad()>",
    "a comment": "<!-- <script> --> ]]>",
    "separators of lines": "a\u2028b\u2029c\x85d\r\ne",
    "NUL and controls": "\0\x01\x08\x1b\x7f\ufeff",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u2066abc\u2069",
    "combining marks": "e\u0301a\u0300 \u0928\u093f",
    "a lone surrogate": "a\udc80b",
    "quotes and escapes": "\"'`\\u003c${x}&lt;&amp;<!-- header --><!-- tensors -->",
    "one character": "a",
}  # fmt: skip

READ = """
async () => {
  const { header } = await Bevia.data.read(document);
  return { alphabet: header.alphabet, tokens: header.prompts[0].tokens, run: header.run, bad: typeof window.bad,
           images: document.querySelectorAll("img[src=x]").length };
}
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_alphabet_is_text(browser: Any, tmp_path: Path, name: str) -> None:
    text = HOSTILE[name]
    run = small_run(tmp_path / "<img src=x onerror=alert(1)>", text, ctx=80)
    with opened(browser, tmp_path / "page.html", make_page(run, [text]).html) as page:
        found = page.run(READ)
    assert found["alphabet"] == sorted(set(map(ord, text)))
    assert [found["alphabet"][token] for token in found["tokens"]] == list(map(ord, text))
    assert found["run"].endswith("<img src=x onerror=alert(1)>")
    assert (found["bad"], found["images"]) == ("undefined", 0)
    assert page.messages == []
    assert [request for request in page.requests if not request.startswith(("file:", "data:"))] == []
    assert len(page.requests) == 1


def test_the_policy_stops_a_script_that_got_in(browser: Any, tmp_path: Path) -> None:
    """Were the escaping wrong, the policy would still stop it."""
    html = make_page(small_run(tmp_path), ["a cat"]).html
    html = html.replace("</body>", '<script>window.bad = 1</script><p onclick="window.bad = 1" id="p">x</p></body>')
    assert "window.bad" in html
    with opened(browser, tmp_path / "page.html", html) as page:
        page.run("() => document.getElementById('p').click()")
        assert page.run("() => typeof window.bad") == "undefined"
        fetched = page.run("() => fetch('https://example.org/').then(() => 'fetched', () => 'refused')")
    assert fetched == "refused"
    assert any("Content Security Policy" in message for message in page.messages)


def test_json_in_a_script_has_no_angle_bracket() -> None:
    text = inert({"</script>": "<!--\u2028\u2029\0"})
    assert "<" not in text
    assert text.isascii()


def test_a_mark_in_the_data_is_not_replaced() -> None:
    """The marks of the template are replaced once, and not in what was put in."""
    entries, text = encode([])
    html = assemble({"tensors": entries, "run": "<!-- scripts --><!-- tensors -->"}, text)
    assert html.count('id="tensors"') == 1
