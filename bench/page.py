"""How long the explorer's page takes to be usable, and from a key to the next picture, in a headless Chromium.

    python bench/page.py runs/1/explorer.html

Medians; the machine should be idle. A key is timed from its event to after the frame that shows it.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

VIEWS = ("read", "attention", "stream", "embeddings", "film", "number")
LOADS = 5
KEYS = "the same and more"

# Notes the milliseconds from each key to the task after its frame.
WATCH = """
() => {
  window.times = [];
  document.getElementById("typing").addEventListener("keydown", () => {
    const start = performance.now();
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.times.push(performance.now() - start);
      channel.port2.postMessage(0);
    });
  }, true);
}
"""


def opened(browser: Any, address: str) -> Any:
    """Return a page that is ready."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def usable(browser: Any, address: str) -> float:
    """Return the milliseconds from the start of the navigation until all of the first view is drawn."""
    page = opened(browser, address)
    found: float = page.evaluate("() => performance.getEntriesByName('ready')[0].startTime")
    page.close()
    return found


def key_times(browser: Any, address: str, view: str) -> list[float]:
    """Return the milliseconds that each key took."""
    page = opened(browser, f"{address}#view={view}")
    page.wait_for_timeout(1000)
    page.focus("#typing")
    page.evaluate(WATCH)
    for key in KEYS:
        page.keyboard.press("Space" if key == " " else key)
        page.wait_for_timeout(50)
    found: list[float] = page.evaluate("() => window.times")
    page.close()
    return found


def main() -> None:
    """Print the times of the page that the command line names."""
    from playwright.sync_api import sync_playwright

    address = Path(sys.argv[1]).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(f"usable after {statistics.median(usable(browser, address) for _ in range(LOADS)):.0f} ms")
        for view in VIEWS:
            times = key_times(browser, address, view)
            print(f"{view:<11} a key takes {statistics.median(times):3.0f} ms, at most {max(times):.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
