"""Benchmarks of a very small model, and a clock that tests can set."""

from __future__ import annotations

import pytest

from bevia_fast.measuring import stopwatch
from bevia_fast.measuring.options import BenchStepConfig
from bevia_fast.measuring.results import StepResult

SMALL = [
    "--ctx", "8", "--dim", "16", "--layers", "1", "--heads", "2", "--batch", "2", "--seconds", "0.05", "--turns", "2",
]  # fmt: skip
TINY = BenchStepConfig(
    ctx=8, dim=16, layers=1, heads=2, batch=2, seconds=0.01, turns=2, threads=(1,), backend=("numpy",)
)
ONE = StepResult("numba", 1, "float32", 64, 64, 1, 1, 8, 65, 2.0, 1.9, 2.1, 1e5, 1e9, 50.0, 100.0, 0.5, 99.0, 1.0)


class FakeClock:
    """Time passes only when a function says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(stopwatch, "clock", lambda: self.now)
