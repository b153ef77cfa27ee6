"""A real browser for the page, and small runs to look at."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_parameters

from bevia_fast.config import ModelConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.kernels import get_backend
from bevia_fast.model.gpt import GPT
from bevia_fast.runs.trained import Run

REQUIRED = "BEVIA_FAST_BROWSER"  # CI sets it to "required": then a missing browser is a failure
TEXT = "a cat sat on a mat"

# Every kind of model.
SIZES = [
    {"norm": norm, "activation": activation, "tie": tie, "bias": bias, "heads": heads}
    for norm, activation, tie, bias, heads in itertools.product(
        ("pre", "post"), ("gelu", "relu"), (True, False), (True, False), (1, 2, 4)
    )
] + [
    {"norm": "pre", "activation": "gelu_erf"}, {"norm": "pre", "scale": False, "residual": False},
    {"norm": "post", "scale": False}, {"residual": False},
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium. Skips the test if there is none, unless the environment requires it."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if executable is None or sync_playwright is None:
        missing = "Chromium" if executable is None else "playwright"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(f"{missing} is not installed, and {REQUIRED}=required")
        pytest.skip(f"{missing} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page that was opened from a file: what it asks for, and what its console says."""

    def __init__(self, browser: Any, path: Path, html: str) -> None:
        path.write_text(html, "utf-8")
        self.requests: list[str] = []
        self.messages: list[str] = []
        self.page = browser.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.goto(path.as_uri())

    def run(self, script: str, argument: Any = None) -> Any:
        """Return the value of a JavaScript function, called in the page with an argument."""
        return self.page.evaluate(script, argument)

    def close(self) -> None:
        self.page.close()


@contextmanager
def opened(browser: Any, path: Path, html: str) -> Iterator[Watched]:
    """Open a page, and close it at the end."""
    watched = Watched(browser, path, html)
    try:
        yield watched
    finally:
        watched.close()


def small_run(folder: Path, text: str = TEXT, **sizes: Any) -> Run:
    """Return a run with large random weights in float64, which knows the characters of `text`."""
    tokenizer = Tokenizer("".join(sorted(set(text))))
    usual: dict[str, Any] = {"ctx": 24, "dim": 8, "layers": 2, "heads": 2, "dtype": "float64"}
    config = ModelConfig(**usual | sizes, vocab_size=len(tokenizer))
    return Run(folder, GPT(config, get_backend("numpy"), random_parameters(config)), tokenizer)


def array(values: Any, *shape: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return numbers from the page as an array."""
    return np.array(values, np.float64).reshape(shape)


