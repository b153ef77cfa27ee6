"""The table of `bench loss`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..measuring.loss_options import BenchLossConfig
from .sheet import Sheet
from .tables import make_table

if TYPE_CHECKING:
    from ..measuring.loss_target import LossResult


def loss_table(config: BenchLossConfig, results: Sequence[LossResult]) -> Sheet:
    """Return a row for each recipe and program; one that has not reached the target says how near it came."""
    rows = []
    for result in results:
        reached = [run for run in result.runs if run.step is not None]
        best = [run.best for run in result.runs if run.best is not None]
        whole = len(reached) == len(result.runs)
        rows.append([
            result.recipe, result.program, f"{len(reached)} of {len(result.runs)}",
            _range([run.seconds for run in reached], ",.1f") if whole else "not reached",
            _range([run.tokens for run in reached], ",.0f") if whole else "not reached",
            _range(best, ".3f") if best else "diverged",
        ])  # fmt: skip
    title = f"Until a validation loss of {config.target:g}: {config.preset}, evaluated every {config.every:,} steps"
    return make_table(title, ["recipe", "program"], ["reached", "seconds", "tokens", "lowest loss"], rows)


def _range(values: Sequence[Any], form: str) -> str:
    """Return the mean, and the least and the most if they differ."""
    mean, ends = f"{statistics.mean(values):{form}}", [f"{end:{form}}" for end in (min(values), max(values))]
    return f"{mean} ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else mean
