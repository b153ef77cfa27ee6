"""`bevia-fast generate`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from ..config import GenerateConfig
from ..model.writing import stream
from ..runs.trained import Run
from .console import printable


def run(config: GenerateConfig) -> int:
    """Write text as it is drawn; returns the exit code."""
    trained = Run.load(config.run, config.backend, config.threads)
    show = printable if sys.stdout.isatty() else str
    characters = stream(trained.model, trained.tokenizer, config)
    sys.stdout.write(show(config.prompt))
    shown = 0.0
    with _compiling_said() if config.backend == "numba" else contextlib.nullcontext():
        for character in characters:
            sys.stdout.write(show(character))
            if time.monotonic() - shown > 1 / 60:  # more often nobody sees, and each time takes some microseconds
                sys.stdout.flush()
                shown = time.monotonic()
    sys.stdout.write("\n")
    return 0


@contextlib.contextmanager
def _compiling_said() -> Iterator[None]:
    """Someone who waits at a terminal is told why, once."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    said = not sys.stderr.isatty()

    def say(_: str) -> None:
        nonlocal said
        if not said:
            print("compiling kernels for this CPU; the next start finds them ...", file=sys.stderr)
        said = True

    with kernel_cache.telling(say):
        yield
