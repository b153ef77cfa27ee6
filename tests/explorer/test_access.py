"""Everything can be reached with keys, and read out; axe-core finds nothing serious in either theme."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import REQUIRED, TEXT, small_run
from showing import VIEWS, Shown, shown
from small_runs import TINY, tiny_config

from bevia_fast import train
from bevia_fast.explorer.exploring import make_page

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"

STATES: list[dict[str, Any]] = [
    *({"view": view, "at": 4} for view in VIEWS),
    {"at": 4, "number": "surprise.4"}, {"view": "attention", "at": 4, "frame": 1, "map": "scores"},
    {"view": "film", "at": 4, "frame": 1, "pin": 0}, {"at": 4, "temperature": 0.5, "topK": 3}, {"tour": 2},
    {"view": "number", "at": 4, "number": "mlp.0.4.1"}, {"view": "embeddings", "frame": 1},
    {"text": -1, "typed": "1.2.3"},
]  # fmt: skip

# Elements that can be pressed or chosen, and that neither Tab nor, within a group, the arrow keys reach.
UNREACHED = """
() => {
  const wanted = "button:enabled, input:enabled, select, [role=tab], [role=option], [role=gridcell], [role=slider]";
  const groups = "[role=tablist], [role=listbox], [role=grid], .bars";
  return [...document.querySelectorAll(wanted)].filter((each) => {
    if (!each.checkVisibility() || each.tabIndex >= 0) return false;
    const group = each.closest(groups);
    return !group || [...group.querySelectorAll(wanted)].filter((other) => other.tabIndex === 0).length !== 1;
  }).map((each) => each.outerHTML.slice(0, 120));
}
"""

# Elements that act on a click, but are none of those above.
NAMELESS = """
() => [...document.querySelectorAll("button, input, select, [role=option], [role=gridcell], [role=slider], [role=img]")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.length))
  .map((each) => each.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = train(tiny_config(tmp_path_factory.mktemp("filmed"), film=4, model=replace(TINY, ctx=16)))
    return make_page(run, [run.tokenizer.alphabet[:9]]).html


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, tmp_path: Path, html: str, theme: str) -> None:
    if not AXE.exists():
        if os.environ.get(REQUIRED) == "required":
            pytest.fail("axe-core is not installed: cd tests/explorer && npm ci")
        pytest.skip("axe-core is not installed")
    found = []
    with shown(browser, tmp_path / "page.html", html, theme=theme) as page:
        page.run(f"() => {{ {AXE.read_text('utf-8')} }}")
        for state in STATES:
            page.go(**state)
            for violation in page.run("() => axe.run({ resultTypes: ['violations'] })")["violations"]:
                nodes = [node["html"][:100] for node in violation["nodes"][:3]]
                found.append((state, violation["impact"], violation["id"], nodes))
    assert found == []


def test_keys_reach_everything(browser: Any, tmp_path: Path, html: str) -> None:
    with shown(browser, tmp_path / "page.html", html) as page:
        for state in STATES:
            page.go(**state)
            assert page.run(UNREACHED) == []
            assert page.run(NAMELESS) == []


def test_tab_goes_through_the_page(browser: Any, tmp_path: Path, html: str) -> None:
    """Each stop of Tab is seen, and the last one is not far: a group is one stop."""
    with shown(browser, tmp_path / "page.html", html) as page:
        page.go(view="stream", at=4)
        stops = []
        for _ in range(30):
            page.press("Tab")
            stop = page.run("() => { const at = document.activeElement; return at.id || at.className || at.tagName; }")
            if stop == "BODY":
                break
            stops.append(stop)
            outline = page.run("() => getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", stop
        wanted = ["skip", "tour-start", "theme", "tab-stream", "text-select", "character chosen", "value", "typing"]
        assert stops[: len(wanted)] == wanted
        assert len(stops) == len(set(stops)) < 16


def test_the_tabs_are_walked_with_arrows(browser: Any, tmp_path: Path, html: str) -> None:
    with shown(browser, tmp_path / "page.html", html) as page:
        page.page.focus("#tab-read")
        for view in VIEWS[1:]:
            page.press("ArrowRight")
            assert page.focused()["view"] == view
            assert page.run("() => document.body.dataset.view") == view
        page.press("Home")
        assert page.run("() => document.body.dataset.view") == "read"


def test_the_cursor_is_moved_with_arrows(browser: Any, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path), [TEXT]).html, width=390) as page:
        page.go(at=3)
        page.page.focus("#text-card .character.chosen")
        page.press("ArrowRight", "ArrowRight", "ArrowLeft")
        assert at(page) == 4
        page.press("End")
        assert at(page) == len(TEXT) - 1
        page.press("Home")
        assert at(page) == 0
        page.press("ArrowDown", "ArrowUp")  # to the line below, if there is one, and back
        assert at(page) == 0


def at(page: Shown) -> int:
    """Return the cursor, which has the focus and is what the readout speaks of."""
    place = int(page.focused()["at"])
    assert page.text("#text-card .where") == f"position {place}"
    return place


def test_what_is_explained_is_said(browser: Any, tmp_path: Path) -> None:
    with shown(browser, tmp_path / "page.html", make_page(small_run(tmp_path), [TEXT]).html) as page:
        page.go(at=5)
        page.page.focus("#text-card .readout .value")
        page.press("Enter")
        assert page.text("#live").startswith("Surprise, of position 5")


def test_the_theme_is_the_readers_choice(browser: Any, tmp_path: Path, html: str) -> None:
    with shown(browser, tmp_path / "page.html", html, theme="dark") as page:
        paper = "() => getComputedStyle(document.body).backgroundColor"
        # the browser may say a moment after it has opened the page that the reader prefers dark
        page.page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
        dark = page.run(paper)
        page.page.click("#theme")
        light = page.run(paper)
        assert light != dark
        page.page.emulate_media(color_scheme="light")
        assert page.run(paper) == light
        page.go(theme="")
        assert page.run(paper) == light
        page.page.emulate_media(color_scheme="dark")
        page.page.wait_for_function(f"(dark) => ({paper})() === dark", arg=dark)
