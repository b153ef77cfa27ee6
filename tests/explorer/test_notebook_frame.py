"""The page in a notebook: it works in its frame, and cannot reach out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browsing import TEXT, opened, small_run

from bevia_fast.explorer.exploring import make_page

READ = """
async () => {
  const data = await Bevia.data.read(document);
  const points = data.header.prompts[0].tokens.map((token) => data.header.alphabet[token]);
  let notebook = "";
  try { notebook = window.parent.document.title; } catch (error) { notebook = error.name; }
  return { text: String.fromCodePoint(...points), notebook };
}
"""


def test_the_page_works_in_a_sandboxed_frame(browser: Any, tmp_path: Path) -> None:
    html = make_page(small_run(tmp_path), [TEXT])._repr_html_()
    with opened(browser, tmp_path / "notebook.html", f"<!doctype html><title>notebook</title>{html}") as page:
        [frame] = [frame for frame in page.page.frames if frame.parent_frame is not None]
        frame.wait_for_load_state()
        assert frame.evaluate(READ) == {"text": TEXT, "notebook": "SecurityError"}
    assert [request for request in page.requests if request.startswith("http")] == []
