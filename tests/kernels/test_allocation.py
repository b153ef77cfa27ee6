"""A training step takes no memory after the first ones: nothing stays, and what is taken meanwhile is small."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.data.corpus import evaluation_batches
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.gpt import GPT
from bevia_fast.training.step import Trainer

SETTLED, STEPS = 30, 50  # an epoch's order is drawn for 1,024 windows at once: 128 steps


def make_trainer(backend: Backend, accumulate: int = 1) -> Trainer:
    model = ModelConfig(ctx=32, dim=32, layers=2, heads=2, dropout=0.1, vocab_size=65)
    tokens = np.random.default_rng(0).integers(0, 65, 50_000, dtype=np.int32)
    return Trainer(TrainConfig(model=model, batch=8, accumulate=accumulate, steps=1000), model, backend, tokens)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_of_the_numba_backend_allocates_nothing(accumulate: int) -> None:
    """Apart from a batch of tokens and Python's own small objects, which go again."""
    trainer = make_trainer(get_backend("numba"), accumulate)
    count = STEPS // accumulate
    for step in range(1, SETTLED + 1):
        trainer.update(step, trainer.backward(step))
    tracemalloc.start()
    try:
        trainer.update(SETTLED + 1, trainer.backward(SETTLED + 1))  # what tracemalloc sees for the first time
        first = traced()
        for step in range(SETTLED + 2, SETTLED + 2 + count):
            trainer.update(step, trainer.backward(step))
        last = traced()
        tracemalloc.reset_peak()
        trainer.update(step + 1, trainer.backward(step + 1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"kept {last - first} bytes in {count} steps; at most {peak - last} bytes in use during one")
    assert last - first < 512  # in all, not for each step: numbers and tuples that take the place of others
    assert peak - last < 24_000  # places, tokens and targets of two batches; one array of (N, C) has 32,768 bytes


def test_smaller_batches_are_computed_in_the_memory_of_the_largest(backend: Backend) -> None:
    """As at the end of an evaluation: fewer sequences, then a shorter one. Same bits as in memory of their own."""
    model = make_trainer(backend).model
    largest = model.buffers(8, 32).embedded
    tokens = np.random.default_rng(1).integers(0, 65, 32 * 19 + 8, dtype=np.int32)
    losses = [model.loss(*batch) for batch in evaluation_batches(tokens, 32, 8)]
    others = [GPT(model.config, backend, model.parameters).loss(*b) for b in evaluation_batches(tokens, 32, 8)]
    assert losses == others
    for shape in ((3, 32), (1, 7), (8, 32)):
        assert np.shares_memory(model.buffers(*shape).embedded, largest)


def traced() -> int:
    """Bytes in use. Without what CPython keeps for later: 3.11 puts tuples of 20 elements aside, up to 2,000 of them,
    and takes none of them out again until the collector comes by."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


RESIDENT = """
import os, sys
import numpy as np
from bevia_fast.config import preset
from dataclasses import replace
from bevia_fast.runs.trained import open_backend
from bevia_fast.training.step import Trainer

config = preset("tiny", steps=10_000, dropout=0.1)
model = replace(config.model, vocab_size=65)
tokens = np.random.default_rng(0).integers(0, 65, 200_000, dtype=np.int32)
trainer = Trainer(config, model, open_backend(sys.argv[1]), tokens)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

found = []
for step in range(1, int(sys.argv[2]) + 1):
    trainer.update(step, trainer.backward(step))
    if step >= 100 and step % 50 == 0:
        found.append(resident())
print(len(found), max(found) - found[0])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not say what is resident")
def test_memory_stays_within_a_megabyte_over_1000_steps() -> None:
    command = [sys.executable, "-c", RESIDENT, "numba", "1100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    count, growth = map(int, done.stdout.split())
    print(f"{growth / 1024:.0f} KiB more than after 100 steps")
    assert count == 21
    assert growth < 1 << 20


FAULTS = """
import resource
import numpy as np
from bevia_fast.measuring.training_step import StepSize, TrainingStep
from bevia_fast.runs.trained import open_backend

step = TrainingStep(StepSize(ctx=64, dim=64, layers=1, heads=1, batch=8, vocab=65), open_backend("numpy"))
for _ in range(5):
    step.run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step.run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library of this system cannot be told")
def test_numpys_arrays_take_memory_that_others_let_go() -> None:
    """Else the system brings each page anew, a few thousand in a step."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{done.stdout.strip()} pages in 10 steps")
    assert int(done.stdout) < 500
