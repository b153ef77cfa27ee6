"""What is said about a step without making it is what making it does."""

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
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.kernels.memory import outline
from bevia_fast.kernels.numba_jit._runtime import scratch
from bevia_fast.kernels.numba_jit._runtime.rehearsal import Rehearsal
from bevia_fast.model import activations
from bevia_fast.planning.forecast import products
from bevia_fast.planning.memory import numpy_bytes, training_memory
from bevia_fast.planning.rehearsal import Key, Noting, rehearse
from bevia_fast.training.step import Trainer

VARIANTS: list[dict[str, Any]] = [
    {}, {"dropout": 0.1, "norm": "post"}, {"activation": "relu", "bias": False, "tie": False}, {"dtype": "float64"},
    {"layers": 1, "heads": 1, "dim": 40}, {"ctx": 700, "vocab_size": 300},
]  # fmt: skip


def config(**options: Any) -> ModelConfig:
    usual: dict[str, Any] = {"ctx": 48, "dim": 32, "layers": 3, "heads": 2, "vocab_size": 65}
    return ModelConfig(**(usual | options))


def trainer_of(model: ModelConfig, backend: Backend, *, recompute: bool, accumulate: int = 1) -> Trainer:
    train = TrainConfig(batch=3, accumulate=accumulate, recompute=recompute, model=model)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, 4 * model.ctx).astype(np.int32)
    return Trainer(train, model, backend, tokens)


class Watching(Noting):
    """Notes the calls that another backend makes."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        for name in vars(self).copy():
            if hasattr(backend, name) and name != "name":
                setattr(self, name, self._both(getattr(self, name), getattr(backend, name)))

    @staticmethod
    def _both(note: Any, function: Any) -> Any:
        def both(*args: Any, **kwargs: Any) -> Any:
            note(*args, **kwargs)
            return function(*args, **kwargs)

        return both


def without_updates(counts: dict[Key, int]) -> dict[Key, int]:
    """AdamW is given other numbers than in the rehearsal, which do not matter for work or memory."""
    return {key: count for key, count in counts.items() if key[0] != "adamw"}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
def test_the_calls_are_those_of_a_step(
    options: dict[str, Any], recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "ROWS", 64)  # several chunks, and a last one that is shorter
    monkeypatch.setattr(activations, "LONG_ROWS", 64)
    model = config(**options)
    watching = Watching(get_backend("numpy"))
    trainer = trainer_of(model, cast(Backend, watching), recompute=recompute, accumulate=2)
    trainer.update(1, trainer.backward(1))
    rehearsed = rehearse(model, 3, recompute=recompute, accumulate=2)
    expected = Counter({call.key: count for call, count in rehearsed.calls})
    assert without_updates(watching.counts) == without_updates(expected)
    assert rehearsed.launches == sum(watching.counts.values())
    assert rehearsed.weights.flat.size == trainer.weights.flat.size


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
def test_working_memory_is_what_the_kernels_hold(options: dict[str, Any], recompute: bool) -> None:
    model = config(**options)
    found: list[dict[Any, int]] = []

    def in_a_thread_with_no_memory_yet() -> None:
        trainer = trainer_of(model, open_backend("numba"), recompute=recompute)
        trainer.update(1, trainer.backward(1))
        found.append({key: array.nbytes for key, array in scratch._local.buffers.items()})
        rehearsal = Rehearsal()
        for call, _ in rehearse(model, 3, recompute=recompute).calls:
            rehearsal.run(call.operation, call.arguments)
        found.append(rehearsal.sizes)
        found.append({("all", None): training_memory(model, 3, "numba", recompute=recompute).scratch})

    thread = threading.Thread(target=in_a_thread_with_no_memory_yet)
    thread.start()
    thread.join()
    held, rehearsed, planned = found
    assert rehearsed == held
    assert sum(held.values()) == sum(planned.values())


@pytest.mark.parametrize("options", [*VARIANTS[:3], {"dtype": "float64", "dropout": 0.1}])
def test_what_numpys_kernels_take_for_a_moment(options: dict[str, Any]) -> None:
    """Counted by Python: within a tenth of what is planned, but for arrays so small that NumPy reuses none."""
    kernels, model = get_backend("numpy"), config(ctx=256, dim=64, **{"vocab_size": 200, **options})
    largest = 0
    for recompute in (False, True):
        for call, _ in rehearse(model, 2, recompute=recompute).calls:
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
    """An array as this outline, with numbers."""
    if not isinstance(value, np.ndarray):
        return value
    random = np.random.default_rng(1)
    if value.dtype == np.int32:
        return random.integers(0, below, value.shape).astype(np.int32)
    array = random.random(value.shape).astype(value.dtype)
    return array if value.flags.c_contiguous else np.asfortranarray(array)


def test_a_rehearsal_compiles_nothing(tmp_path: Path) -> None:
    """Told by a process that has nothing compiled yet, nor a place to find it."""
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
    with pytest.raises(ConfigError, match=r"2,147,483,648 tokens is more than any memory holds"):
        rehearse(large, 2048)
