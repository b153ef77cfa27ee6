"""Pictures: nice to have, and never a reason to end a run or to lose results."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator

from .errors import reason


def drawn(name: str, draw: Callable[[], bytes], note: Callable[[str], None]) -> bytes | None:
    """Return what `draw` returns, the bytes of a picture. If that fails, call `note` with the reason and return None.

    `draw` should import matplotlib itself, because that can fail too: through its settings, its fonts, its folders.
    """
    try:
        with _quiet():
            return draw()
    except Exception as error:
        note(f"{name} cannot be drawn: {reason(error)}.")
        return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside this context, matplotlib says nothing about folders and fonts that it cannot use; it goes on without."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
