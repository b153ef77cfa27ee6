"""Take the pictures of the explorer in the README: `python docs/draw_explorer.py runs/1/explorer.html`.

They need Debian's chromium, and playwright.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PICTURES = {
    "explorer-attention.png": ("light", "view=attention&layer=0&head=3&at=30", 1100),
    "explorer-stream.png": ("dark", "view=stream&at=15&stage=4", 830),
}  # name: theme, state, height in pixels


def main() -> None:
    """Write the pictures beside this file."""
    from playwright.sync_api import sync_playwright

    address = Path(sys.argv[1]).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (theme, state, height) in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=theme)
            page.goto(f"{address}#{state}")
            page.wait_for_selector("html[data-ready]")
            page.wait_for_timeout(500)
            page.screenshot(path=Path(__file__).parent / name)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
