"""The rehearsal of a step makes the same calls, and counts the same memory, as the step itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from bevia_fast.backends import open_backend
from bevia_fast.config import ModelConfig, OptimizerName, TrainConfig
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.memory import outline
from bevia_fast.kernels.numba_jit._runtime import scratch
from bevia_fast.kernels.numba_jit._runtime.rehearsal import Rehearsal
from bevia_fast.model import activations
from bevia_fast.planning.forecast import products
from bevia_fast.planning.memory import numpy_bytes, training_memory
from bevia_fast.planning.rehearsal import CallCounter, Key, rehearse
from bevia_fast.training.step import Trainer

VARIANTS: list[dict[str, Any]] = [
    {}, {"dropout": 0.1, "norm": "post"}, {"activation": "relu", "bias": False, "tie": False}, {"dtype": "float64"},
    {"layers": 1, "heads": 1, "dim": 40}, {"ctx": 700, "vocab_size": 300},
    {"positions": "rotary"}, {"window": 16, "layers": 4}, {"window": 16, "layers": 5},
]  # fmt: skip


def config(**options: Any) -> ModelConfig:
    usual: dict[str, Any] = {"ctx": 48, "dim": 32, "layers": 3, "heads": 2, "vocab_size": 65}
    return ModelConfig(**(usual | options))


def trainer_of(
    model: ModelConfig, backend: Backend,
    *, recompute: bool, accumulate: int = 1, optimizer: OptimizerName = "adamw",
) -> Trainer:  # fmt: skip
    train = TrainConfig(batch=3, accumulate=accumulate, recompute=recompute, model=model, optimizer=optimizer)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, 4 * model.ctx).astype(np.int32)
    return Trainer(train, model, backend, tokens)


class CountingBackend(CallCounter):
    """A backend that computes with another one and counts the calls."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        for name in vars(self).copy():
            if hasattr(backend, name) and name != "name":
                setattr(self, name, self._both(getattr(self, name), getattr(backend, name)))

    @staticmethod
    def _both(count: Any, function: Any) -> Any:
        def both(*args: Any, **kwargs: Any) -> Any:
            count(*args, **kwargs)
            return function(*args, **kwargs)

        return both


def without_updates(counts: dict[Key, int]) -> dict[Key, int]:
    """Leave out AdamW: the rehearsal passes it other numbers, which do not affect work or memory."""
    return {key: count for key, count in counts.items() if key[0] != "adamw"}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_calls_are_those_of_a_step(
    options: dict[str, Any], recompute: bool, optimizer: OptimizerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "ROWS", 64)  # several chunks, and a last one that is shorter
    monkeypatch.setattr(activations, "LONG_ROWS", 64)
    model = config(**options)
    counter = CountingBackend(get_backend("numpy"))
    trainer = trainer_of(model, cast(Backend, counter), recompute=recompute, accumulate=2, optimizer=optimizer)
    trainer.update(1, trainer.backward(1))
    rehearsed = rehearse(model, 3, recompute=recompute, accumulate=2, optimizer=optimizer)
    expected = Counter({call.key: count for call, count in rehearsed.calls})
    assert without_updates(counter.counts) == without_updates(expected)
    assert rehearsed.launches == sum(counter.counts.values())
    assert rehearsed.weights.flat.size == trainer.weights.flat.size
    planned = training_memory(model, 3, "numpy", recompute=recompute, optimizer=optimizer)
    assert planned.moments == trainer.first.flat.nbytes + trainer.second.flat.nbytes


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_working_memory_is_planned_as_the_kernels_allocate_it(
    options: dict[str, Any], recompute: bool, optimizer: OptimizerName
) -> None:
    model, given = config(**options), {"recompute": recompute, "optimizer": optimizer}
    found: list[dict[Any, int]] = []

    def in_a_thread_with_no_memory_yet() -> None:
        trainer = trainer_of(model, open_backend("numba"), **given)  # type: ignore[arg-type]
        trainer.update(1, trainer.backward(1))
        found.append({key: array.nbytes for key, array in scratch._local.buffers.items()})
        rehearsal = Rehearsal()
        for call, _ in rehearse(model, 3, **given).calls:  # type: ignore[arg-type]
            rehearsal.run(call.operation, call.arguments)
        found.append(rehearsal.sizes)
        found.append({("all", None): training_memory(model, 3, "numba", **given).scratch})  # type: ignore[arg-type]

    thread = threading.Thread(target=in_a_thread_with_no_memory_yet)
    thread.start()
    thread.join()
    held, rehearsed, planned = found
    assert rehearsed == held
    assert sum(held.values()) == sum(planned.values())


@pytest.mark.parametrize("options", [*VARIANTS[:3], {"dtype": "float64", "dropout": 0.1}, {"activation": "gelu_erf"}])
def test_temporary_arrays_of_the_numpy_kernels(options: dict[str, Any]) -> None:
    """Their traced peak is within a tenth of the plan, apart from arrays so small that NumPy does not reuse them."""
    kernels, model = get_backend("numpy"), config(ctx=256, dim=64, **{"vocab_size": 200, **options})
    largest = 0
    for recompute in (False, True):
        # Muon leaves some weights to AdamW
        for call, _ in rehearse(model, 2, recompute=recompute, optimizer="muon").calls:
            arguments = {name: filled(value, model.vocab_size) for name, value in call.arguments.items()}
            function = getattr(kernels, call.operation)
            function(**arguments)
            tracemalloc.start()
            function(**arguments)
            taken = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            largest = max(largest, taken)
            assert taken < 1.1 * numpy_bytes(call) + 200_000, call.operation
            if call.operation.startswith("attention"):
                assert taken > 0.9 * numpy_bytes(call), call.operation
    planned = training_memory(model, 2, "numpy").scratch
    assert 0.9 * planned < largest < 1.1 * planned


def filled(value: Any, below: int) -> Any:
    """Return an array like this outline, filled with random numbers."""
    if not isinstance(value, np.ndarray):
        return value
    random = np.random.default_rng(1)
    if value.dtype == np.int32:
        return random.integers(0, below, value.shape).astype(np.int32)
    array = random.random(value.shape).astype(value.dtype)
    return array if value.flags.c_contiguous else np.asfortranarray(array)


def test_a_rehearsal_compiles_nothing(tmp_path: Path) -> None:
    """Checked in a process whose cache of compiled kernels is empty."""
    code = (
        "from bevia_fast.planning.memory import training_memory\nfrom bevia_fast.config import ModelConfig\n"
        "from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache\n"
        "assert training_memory(ModelConfig(vocab_size=65), 1, 'numba').scratch > 0\nprint(kernel_cache.compiled)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "BEVIA_FAST_CACHE_DIR": str(tmp_path)},
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_outlines_take_no_memory_and_cannot_be_written_to() -> None:
    huge = outline((1 << 20, 3, 1 << 20), "float64")
    assert huge.nbytes == 3 << 43
    assert huge.flags.c_contiguous
    assert huge.reshape(-1).shape == (3 << 40,)
    with pytest.raises(ValueError, match="read-only"):
        huge[0, 0, 0] = 1
    assert outline((0, 5), "float32").nbytes == 0


def test_a_rehearsal_is_quick_however_large_the_model_is() -> None:
    large = ModelConfig(ctx=1 << 20, dim=1 << 14, layers=4000, heads=64, vocab_size=1 << 20)
    assert products(rehearse(large, 64)) > 1e20
    words = r"^A batch of 2,147,483,648 tokens is too large; the limit is 1,073,741,824\.$"
    with pytest.raises(ConfigError, match=words):
        rehearse(large, 2048)
