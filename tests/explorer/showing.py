"""The page in a browser: how a test opens it, moves in it, and reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browsing import Watched, opened

VIEWS = ("read", "attention", "stream", "embeddings", "film", "number")

# Goes to a state, and waits until it is drawn.
GO = """
(hash) => new Promise((done) => {
  if (location.hash === hash) return done();
  addEventListener("hashchange", () => setTimeout(done), { once: true });
  location.hash = hash;
})
"""

TEXTS = """
(selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility())
  .map((each) => each.textContent)
"""


class Shown(Watched):
    """A page whose views are drawn."""

    def go(self, **state: Any) -> None:
        """Show a state, such as view="film"."""
        self.page.evaluate(GO, "#" + "&".join(f"{name}={value}" for name, value in state.items()))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of the elements that are seen."""
        found: list[str] = self.page.evaluate(TEXTS, selector)
        return found

    def text(self, selector: str) -> str:
        """Return the text of the one element that is seen."""
        [found] = self.texts(selector)
        return found

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> Any:
        """Return the data of the element that has the focus."""
        return self.page.evaluate("() => ({ ...document.activeElement.dataset })")

    def bars(self, view: str = "read") -> list[tuple[str, float]]:
        """Return signs and values of the bars of a view."""
        rows = self.page.evaluate(
            """(selector) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility())
              .map((each) => [each.querySelector(".glyph").textContent, each.querySelector(".value").textContent])""",
            f"#view-{view} .bar",
        )
        return [(sign, 0.0 if value == "<0.001" else float(value)) for sign, value in rows]


@contextmanager
def shown(browser: Any, path: Path, html: str, *, width: int = 1280, theme: str = "light") -> Iterator[Shown]:
    """Open a page, and wait until its first view is drawn; at the end, nothing may have gone wrong in it."""
    with opened(browser, path, html) as watched:
        watched.__class__ = Shown
        assert isinstance(watched, Shown)
        watched.page.set_viewport_size({"width": width, "height": 800})
        watched.page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        watched.page.wait_for_selector("html[data-ready]")
        yield watched
        assert watched.messages == [], watched.messages
        assert watched.requests == [path.as_uri()]
