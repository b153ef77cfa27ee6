"""`bevia-fast explore`: a trained model as a page that opens in any browser."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

from ..config import STANDARD, ExploreConfig
from ..errors import ConfigError
from ..explorer.exploring import LARGEST, Explorer, make_page
from ..explorer.serving import Server
from ..files import check_writable, read_standard_input
from ..machine import readable
from ..naming import option
from ..runs.choosing import remark_on
from ..runs.trained import Run
from .tables import FittedConsole, console_beside

PAGE = "explorer.html"


def run(config: ExploreConfig) -> int:
    """Write the page and print its path, or serve it until Ctrl-C; return the exit code."""
    check_writable(config.out)
    if list(config.prompt).count(STANDARD) > 1:
        raise ConfigError(f"Only one {option('prompt')} can be -, which stands for standard input.")
    console = console_beside(config.out)
    trained = Run.load(config.run, config.backend, checkpoint=config.checkpoint)
    texts = [read_standard_input("The prompt") if text == STANDARD else text for text in config.prompt]
    serving = f"{option('serve', True)}, which shows a page of any size"
    page = make_page(trained, texts, half=config.half, most=None if config.serve else LARGEST, serving=serving)
    remark = remark_on(config.run, config.checkpoint, trained.step)
    for note in filter(None, [remark, *page.notes]):
        console.say(f"note: {note}")
    if config.out or not config.serve:
        _write(console, page, config.out or str(trained.folder / PAGE), config.open and not config.serve)
    if config.serve:
        _serve(console, page, config)
    return 0


def _write(console: FittedConsole, page: Explorer, path: str, show: bool) -> None:
    page.save(path)
    if path != STANDARD:
        console.say(f"{path}  ({readable(page.size)})")
        if show:
            _show(console, Path(os.path.realpath(path)).as_uri())


def _serve(console: FittedConsole, page: Explorer, config: ExploreConfig) -> None:
    with Server(page.html) as server:
        console.say(f"{server.address}  ({readable(page.size)}; Ctrl-C ends it)")
        if config.open:
            _show(console, server.address)
        try:
            server.run()
        except KeyboardInterrupt:  # the usual end
            console.say("")


def _show(console: FittedConsole, address: str) -> None:
    if not webbrowser.open(address):
        console.say(f"note: no browser was found; open {address} in one.")
