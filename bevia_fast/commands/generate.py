"""`bevia-fast generate`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from ..backends import damaged_code
from ..config import GenerateConfig
from ..model.writing import stream
from ..runs.trained import Run
from .arguments import PROG
from .console import COMPILING, printable


def run(config: GenerateConfig) -> int:
    """Print the text while it is sampled; return the exit code."""
    trained = Run.load(config.run, config.backend, config.threads)
    show = printable if sys.stdout.isatty() else str
    characters = stream(trained.model, trained.tokenizer, config)
    sys.stdout.write(show(config.prompt))
    shown = 0.0
    with _report_compiling() if config.backend == "numba" else contextlib.nullcontext():
        for character in characters:
            sys.stdout.write(show(character))
            if time.monotonic() - shown > 1 / 60:  # nobody sees more frames, and each flush takes microseconds
                sys.stdout.flush()
                shown = time.monotonic()
    sys.stdout.write("\n")
    return 0


@contextlib.contextmanager
def _report_compiling() -> Iterator[None]:
    """Tell a user who waits at a terminal that kernels are being compiled, once."""
    from ..kernels.numba_jit._runtime import cache as kernel_cache

    reported = not sys.stderr.isatty()

    def say(_: str) -> None:
        nonlocal reported
        if not reported:
            print(COMPILING, file=sys.stderr)
        reported = True

    with kernel_cache.telling(say):
        yield
    damaged = damaged_code()
    if damaged:
        print(f"{PROG}: {damaged}.", file=sys.stderr)
