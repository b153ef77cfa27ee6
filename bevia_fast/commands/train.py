"""`bevia-fast train`."""

from __future__ import annotations

import sys

from ..config import TrainConfig
from ..errors import StoppedRun
from ..training.loop import train
from .console import ConsoleReporter, PlainConsole, Steadfast


def run(config: TrainConfig) -> int:
    """Train and show the run; return the exit code. Raises StoppedRun if not all of its output could be written."""
    output = Steadfast(sys.stdout)
    result = train(config, ConsoleReporter(PlainConsole(file=output)))
    if result.interrupted:
        return 128 + result.interrupted
    if output.problem:
        raise StoppedRun(f"The run is saved in {result.folder}, but standard output is incomplete: {output.problem}.")
    return 0
