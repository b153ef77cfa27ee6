"""Opening a backend: the number of threads belongs to it."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bevia_fast import GPT, ModelConfig, Parameters, get_backend, open_backend
from bevia_fast.backends import OnThreads, describe_backend
from bevia_fast.errors import ConfigError
from bevia_fast.kernels.contract import OPERATIONS, UNCHECKED, Backend
from bevia_fast.kernels.numba_jit._runtime import threads as kernel_threads

MOST = kernel_threads.numba_config.NUMBA_NUM_THREADS
CONFIG = ModelConfig(ctx=8, dim=8, layers=1, heads=1, vocab_size=5)


@pytest.mark.skipif(MOST < 2, reason="needs two threads")
def test_the_number_of_threads_travels_with_the_backend() -> None:
    """Each Python thread starts with the most threads that Numba has; a backend on one thread stays on one there."""
    one, two = open_backend("numba", 1), open_backend("numba", 2)
    tokens = np.zeros((2, 8), np.int32)

    def used(backend: Backend) -> list[int]:
        """The threads after each of some passes: as written, recorded, replayed, and another backend's between them."""
        model, gradients, counts = GPT(CONFIG, backend, Parameters.initial(CONFIG, 1)), Parameters(CONFIG), []
        for _ in range(5):
            kernel_threads.set_threads(3 - expected[backend])  # someone else's
            model.loss_and_gradients(tokens, tokens, gradients)
            counts.append(kernel_threads.thread_count())
        return counts

    expected = {one: 1, two: 2}
    for backend, count in expected.items():
        assert used(backend) == [count] * 5
        with ThreadPoolExecutor(1) as other:
            assert other.submit(used, backend).result() == [count] * 5
        with ThreadPoolExecutor(1) as other:  # which has run nothing yet
            assert other.submit(describe_backend, backend).result().startswith(f"numba, {count} thread")
            assert repr(backend).startswith(f"<backend numba on {count} thread")


@pytest.mark.skipif(MOST < 2, reason="needs two threads")
def test_every_operation_sets_the_number() -> None:
    """Also what a tape records of an operation: its function without checks."""
    noted: list[tuple[str, int]] = []

    def noting(name: str) -> Any:
        def function(*arguments: Any) -> None:
            noted.append((name, kernel_threads.thread_count()))

        setattr(function, UNCHECKED, lambda: noted.append((f"{name}, unchecked", kernel_threads.thread_count())))
        return function

    names = [*OPERATIONS, "conditions"]
    backend = OnThreads(
        cast(Backend, SimpleNamespace(name="numba", launches=None, **{name: noting(name) for name in names})), 1
    )
    wanted = []
    for name in names:
        for function in (getattr(backend, name), getattr(getattr(backend, name), UNCHECKED)):
            kernel_threads.set_threads(2)
            function()
        wanted += [(name, 1), (f"{name}, unchecked", 1)]
    assert noted == wanted


def test_a_backend_on_threads_has_the_signatures_of_the_contract() -> None:
    backend, kernels = open_backend("numba", 1), get_backend("numba")
    for name in OPERATIONS:
        assert inspect.signature(getattr(backend, name)) == inspect.signature(getattr(kernels, name))


@pytest.mark.parametrize(("name", "threads", "words"), [
    ("cuda", 0, "backend is 'cuda'; it must be one of numpy, numba."), (None, 0, "backend is None; it must be one of"),
    ("numba", "2", "threads is '2'; it must be an integer, at least 0."), ("numba", True, "threads is True; it must"),
    ("numba", -1, "threads is -1; it must"), ("numpy", 1.5, "threads is 1.5; it must"),
])  # fmt: skip
def test_what_is_no_backend_is_refused(name: Any, threads: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_backend(name, threads)
    assert str(caught.value).startswith(words)


def test_more_threads_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match="4096 is not available: 4096 threads are requested"):
        open_backend("numba", 4096)
