"""The process of a competitor: the memory that it reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevia_fast.measuring.competitor import Competitor
from bevia_fast.measuring.precheck import Agreement
from bevia_fast.measuring.results import StepReport
from bevia_fast.measuring.stopwatch import Rules
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.memory import training_memory
from bevia_fast.reporter import Progress


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not report peak memory")
def test_peak_memory_is_that_of_the_steps(tmp_path: Path) -> None:
    """The weights read from a file, and the gradients written to one, do not count.

    A small object that comes to lie in freed memory can make the C library take new memory for one of AdamW's
    temporary arrays, which are as large as the weights. This depends on the layout of the heap, which follows from
    sizes and even from the names of folders, so up to 40 sizes of model are tried, of which a third may fit; weights
    that counted would do so in each.
    """
    excess = []
    for dim in (512, 480, 448, 544, 384, 416, 576, 320, 640, *range(256, 504, 8)):
        size = StepSize(8, dim, 4, 4, 1, 65)
        agreement = Agreement(size, [("numpy", 1)], tmp_path, None, StepReport(), Progress())
        weights = Parameters(size.model).flat.nbytes / 1e6
        with Competitor("numpy", 1) as one:
            one.ask("load")
            before = one.ask("facts")["peak_rss_mb"]
            agreement.begin(("numpy", 1), one, Rules(warmup_seconds=0.0))
            one.ask("warm")
            taken = one.ask("facts")["peak_rss_mb"] - before
        planned = training_memory(size.model, 1, "numpy").total / 1e6
        assert taken > 0.9 * planned
        excess.append((taken - planned) / weights)
        if excess[-1] < 0.5:
            break
    assert min(excess) < 0.5, excess
