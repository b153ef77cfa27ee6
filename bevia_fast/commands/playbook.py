"""`bevia-fast playbook`: all chapters of the playbook as one HTML file."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from ..config import PlaybookConfig
from ..files import check_writable, write_text
from ..playbook.page import build
from .tables import console_beside


def run(config: PlaybookConfig) -> int:
    """Write the page, print its path and open it if that is asked for; return the exit code."""
    check_writable(config.out)
    page = build()
    write_text(config.out, page)
    console = console_beside(config.out)
    console.say(f"The playbook is in {config.out}, which needs no network.")
    if config.open and not webbrowser.open(Path(config.out).resolve().as_uri()):
        console.say("There is no browser here to open it with.")
    return 0
