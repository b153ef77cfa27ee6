"""Benchmark the whole training step: forward, backward, clipping, AdamW."""

from __future__ import annotations

from typing import Any

import pytest
from measured import add_rates, each_backend

from bevia_fast.backends import open_backend
from bevia_fast.config import preset
from bevia_fast.measuring.training_step import StepSize, TrainingStep


@each_backend
@pytest.mark.parametrize("name", ["tiny", "laptop"])
def test_step(benchmark: Any, name: Any, backend: Any) -> None:
    config = preset(name, vocab_size=65)
    size = StepSize.of(config.model, config.batch)
    step = TrainingStep(size, open_backend(backend))
    step.run()
    benchmark.group = f"training step, {name}"
    benchmark.extra_info.update(flops=size.flops, tokens=size.tokens)
    benchmark(step.run)
    add_rates(benchmark, size.flops)
    if not benchmark.disabled:
        benchmark.extra_info["tokens_per_s"] = size.tokens / benchmark.stats.stats.median
