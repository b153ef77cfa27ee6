"""`bevia-fast train`."""

from __future__ import annotations

from ..config import TrainConfig
from ..training.loop import train
from .console import ConsoleReporter, PlainConsole


def run(config: TrainConfig) -> int:
    """Train and show the run; return the exit code."""
    result = train(config, ConsoleReporter(PlainConsole()))
    return 128 + result.interrupted if result.interrupted else 0
