"""The check before timing: all competitors must compute the same gradients."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_benches import TINY

from bevia_fast.errors import StoppedRun
from bevia_fast.measuring.competitor import Competitor
from bevia_fast.measuring.options import BenchStepConfig
from bevia_fast.measuring.precheck import CHECK_CTX, Agreement, checked_shape
from bevia_fast.measuring.results import StepReport
from bevia_fast.measuring.step_times import bench_steps
from bevia_fast.measuring.training_step import StepSize
from bevia_fast.reporter import Progress


@pytest.mark.parametrize("value", [1.0, np.nan])
@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_timed_where_the_gradients_differ(
    value: float, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of them is wrong: numpy's are read first, and the others are compared with them."""
    read = Agreement._read

    def wrong(self: Agreement, path: Path) -> Any:
        gradients, loss = read(self, path)
        if path.name == f"gradients-{number}.npz":
            gradients["h.0.mlp.c_fc.weight"][3, 5] += value
        return gradients, loss

    monkeypatch.setattr(Agreement, "_read", wrong)
    config = BenchStepConfig(ctx=8, dim=16, layers=1, heads=2, batch=2, seconds=0.05, turns=1, threads=(1,))
    with pytest.raises(StoppedRun, match=r"numba differs from numpy, so nothing was timed: .*c_fc.weight\[3, 5\]"):
        bench_steps(config)


def test_competitors_are_compared_on_whole_contexts_if_possible() -> None:
    size = StepSize(64, 32, 1, 2, 100, 65)
    assert checked_shape(size, None) == (64, 64)
    assert checked_shape(replace(size, batch=3), None) == (3, 64)
    long = replace(size, ctx=8192, batch=2)
    assert checked_shape(long, 16e9) == (1, 8192)
    for free in (None, 1e9):  # numpy's arrays of T x T
        assert checked_shape(long, free) == (2, CHECK_CTX)
    assert checked_shape(replace(long, ctx=1 << 17), 1e15) == (2, CHECK_CTX)  # it would take hours
    assert checked_shape(replace(long, ctx=1 << 17, window=1024), 1e15) == (1, 2048)  # something lies outside
    assert checked_shape(replace(long, ctx=1 << 17, window=256), 1e15) == (2, CHECK_CTX)  # here, too
    assert checked_shape(replace(long, ctx=1 << 17, window=1024), 1e6) == (2, CHECK_CTX)  # no memory for it
    assert checked_shape(replace(long, ctx=1 << 17, window=1 << 16), 1e15) == (2, CHECK_CTX)  # hours again


def test_the_report_says_how_much_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_steps(TINY).checked.startswith("Loss and gradients of 2 x 8 tokens agree with numpy's: ")
    monkeypatch.setattr("bevia_fast.measuring.precheck.CHECK_CTX", 4)
    monkeypatch.setattr("bevia_fast.measuring.precheck.CHECK_SCORES", 1)
    words = "Loss and gradients of 2 x 4 tokens (the first 4 of 8 positions, as NumPy cannot handle all) agree with"
    assert bench_steps(TINY).checked.startswith(words)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("activation", ["gelu", "gelu_erf"])
def test_a_peer_in_float64_is_not_rounded(tmp_path: Path, activation: str) -> None:
    size = StepSize(8, 16, 1, 2, 2, 5, "float64", activation=activation)
    keys = [("numpy", 1), ("torch-eager", 1)]
    agreement = Agreement(size, keys, tmp_path, None, StepReport(), Progress())
    for key in keys:
        with Competitor(*key) as one:
            agreement.begin(key, one)
    agreement.check()
    assert float(agreement.report.checked.split("difference ")[1].split(",")[0]) < 1e-14
