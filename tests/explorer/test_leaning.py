"""What is left out of scripts and style sheets, and what must not be."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from bevia_fast.explorer.leaning import lean_script, lean_style

SCRIPT = """
"use strict";

// A comment.
(() => {
  /**
   * A description.
   */
  const url = "https://example.org";  // stays
  /* one line */
  const map = /** @type {Map<string, import("./types").Entry>} */ (new Map());
  for (const key of [1, 2]) map.set(key, { a: key ? 1 : + +key });
  return `a // b ${url}`;
})();
"""


def test_a_script() -> None:
    wanted = """"use strict";
(()=>{
const url = "https://example.org";  // stays
const map=(new Map());
for(const key of[1,2])map.set(key,{a:key?1:+ +key});
return `a // b ${url}`;
})();
"""
    assert lean_script(SCRIPT) == wanted
    assert lean_script(wanted) == wanted


@pytest.mark.parametrize(("line", "wanted"), [
    ('f("a = b", c = d);', 'f("a = b",c=d);'),
    ("f('a, \\'b = c', \"d = 'e\", g = h);", "f('a, \\'b = c',\"d = 'e\",g=h);"),
    ("f(`a = ${b = c}`, d = e);", "f(`a = ${b = c}`,d=e);"),
    ("f(`a ${b ? `c = d` : e}`, g = h);", "f(`a ${b ? `c = d` : e}`, g = h);"),  # which is in which?
    ("f(`a = b`, `c`, d = e);", "f(`a = b`, `c`, d = e);"),
    ('a = b / c; d = "e / f";', 'a = b / c; d = "e / f";'),
    ("a = /[\"'] = /; b = 'c';", "a = /[\"'] = /; b = 'c';"),
    ('a = "b // c"; d = e;', 'a="b // c";d=e;'),
    ("a = b; // c = d", "a=b;"),
    ('a = "b"; // c = d', 'a = "b"; // c = d'),
    ("it's = half; a = b;", "it's = half; a = b;"),
])  # fmt: skip
def test_strings_stay_as_they_are(line: str, wanted: str) -> None:
    assert lean_script(line) == wanted + "\n"


def test_a_template_stays_as_it_is() -> None:
    text = "  f(`a\\n\n  // b ${\n    c}\n  /* d `);\n  // e\n  g();\n"
    assert lean_script(text) == text[2:].replace("  // e\n  g", "g")


def test_a_style_sheet() -> None:
    text = """
/* A comment
   of lines. */
a:hover, b > c {
  color: red;
  font: 1px "a: b, c {";
  transition: color 1s,
    opacity 1s
    ease;
}
"""
    wanted = 'a:hover,b > c{color:red;font: 1px "a: b, c {";transition:color 1s,opacity 1s\nease;}'
    assert lean_style(text) == wanted


@pytest.mark.parametrize("text", ["/* a */ b();", "/*\n a\n*/ b();"])
def test_code_beside_a_comment_is_refused(text: str) -> None:
    for lean in (lean_script, lean_style):
        with pytest.raises(ValueError, match=r"^line \d has code beside a comment: "):
            lean(text)


TREES = """
const { parse } = require("espree");
let text = "";
process.stdin.on("data", (part) => { text += part; }).on("end", () => {
  const shown = (program) => JSON.stringify(parse(program, { ecmaVersion: 2022 }), (name, value) =>
    (name === "start" || name === "end" ? undefined : typeof value === "bigint" ? String(value) : value));
  console.log(JSON.stringify(JSON.parse(text).map(([a, b]) => shown(a) === shown(b))));
});
"""


def test_the_programs_stay_the_same() -> None:
    """Both texts of each script have the same syntax tree."""
    here, tools = files("bevia_fast.explorer") / "page", Path(__file__).parent
    if not shutil.which("node") or not (tools / "node_modules" / "espree").is_dir():
        pytest.skip("the tools of tests/explorer/package.json are not installed")
    texts = [path.read_text("utf-8") for folder in (here, here / "parts", here / "views") for path in folder.iterdir()
             if path.name.endswith(".js")]  # fmt: skip
    pairs = json.dumps([[text, lean_script(text)] for text in texts])
    done = subprocess.run(
        ["node", "--eval", TREES], cwd=tools, input=pairs, capture_output=True, text=True, check=True
    )
    assert len(texts) > 10
    assert json.loads(done.stdout) == [True] * len(texts)
