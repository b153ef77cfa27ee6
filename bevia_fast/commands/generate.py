"""`bevia-fast generate`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from ..backends import damaged_code
from ..config import STANDARD
from ..errors import escaped
from ..files import check_writable, read_standard_input, write_text
from ..model.writing import stream
from ..runs.choosing import remark_on
from ..runs.trained import Run
from .arguments import PROG, GenerateCommand
from .console import COMPILING, printable


def run(config: GenerateCommand) -> int:
    """Print the text while it is sampled, or write it to a file; return the exit code."""
    out = "" if config.out == "-" else config.out
    check_writable(out)
    if config.prompt == STANDARD:
        config = replace(config, prompt=read_standard_input("The prompt"))
    trained = Run.load(config.run, config.backend, config.threads, config.checkpoint)
    remark = remark_on(config.run, config.checkpoint, trained.step)
    if remark and sys.stderr.isatty():
        print(f"note: {remark}", file=sys.stderr)
    characters = stream(trained.model, trained.tokenizer, config)
    with _report_compiling() if config.backend == "numba" else contextlib.nullcontext():
        if out:
            write_text(out, "".join([config.prompt, *characters, "\n"]))
        else:
            _print(config.prompt, characters)
    if out:
        print(f"Saved in {escaped(out)}.")
    return 0


def _print(prompt: str, characters: Iterator[str]) -> None:
    show = printable if sys.stdout.isatty() else str
    sys.stdout.write(show(prompt))
    shown = 0.0
    for character in characters:
        sys.stdout.write(show(character))
        if time.monotonic() - shown > 1 / 60:  # nobody sees more frames, and each flush takes microseconds
            sys.stdout.flush()
            shown = time.monotonic()
    sys.stdout.write("\n")


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
