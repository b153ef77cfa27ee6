"""Passes that are played from a tape, against passes that are made."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import pytest

from bevia_fast.config import ModelConfig
from bevia_fast.kernels import get_backend, tape
from bevia_fast.kernels.contract import OPERATIONS, Backend, ContractError
from bevia_fast.kernels.memory import aligned_zeros
from bevia_fast.kernels.numba_jit._runtime.scratch import scratch
from bevia_fast.kernels.numba_jit._runtime.threads import set_threads
from bevia_fast.model import activations
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.gpt import GPT, Pass
from bevia_fast.model.parameters import Parameters

B, T = 3, 8


def config(**options: Any) -> ModelConfig:
    usual: dict[str, Any] = {"ctx": T, "dim": 8, "layers": 2, "heads": 2, "vocab_size": 7, "dropout": 0.2}
    return ModelConfig(**(usual | options))


def batch(number: int, rows: int = B) -> tuple[np.ndarray, np.ndarray]:
    tokens, targets = np.random.default_rng(number).integers(0, 7, (2, rows, T), dtype=np.int32)
    return tokens, targets


class Counting:
    """A backend that counts the calls that the model makes; that of `failing` fails."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.count, self.failing = backend, 0, ""
        for name in ("launches", "conditions"):
            if hasattr(backend, name):
                setattr(self, name, getattr(backend, name))

    def __getattr__(self, name: str) -> Any:
        if name not in OPERATIONS:
            if name == "name":
                return self.backend.name
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if name == self.failing:
                raise KeyboardInterrupt
            return getattr(self.backend, name)(*arguments, **options)

        return call


def made(model: GPT, gradients: Parameters, number: int, **options: Any) -> int:
    """The calls of operations in a pass, forward and backward."""
    counting = cast(Counting, model.backend)
    before = counting.count
    model.loss_and_gradients(*batch(number), gradients, dropout=DropoutStream(1, number), **options)
    return counting.count - before


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("rows", "chunk"), [(B, 16), (16, 2048)])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.0}, {"norm": "post", "bias": False, "tie": False}])
def test_a_played_pass_gives_the_bits_of_one_that_is_made(
    backend: Backend, options: dict[str, Any], rows: int, chunk: int, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tokens, other masks and other weights in each; also in chunks of rows, so that masks begin at some row."""
    monkeypatch.setattr(activations, "ROWS", chunk)
    cfg = config(**options)
    weights = Parameters.initial(cfg, 1)
    model = GPT(cfg, backend, weights, recompute=recompute)
    played, fresh = Parameters(cfg), Parameters(cfg)
    for number in range(6):
        stream = DropoutStream(1, number)
        found = model.loss_and_gradients(*batch(number, rows), played, scale=0.5, dropout=stream)
        other = GPT(cfg, backend, weights, recompute=recompute)
        assert found == other.loss_and_gradients(*batch(number, rows), fresh, scale=0.5, dropout=stream)
        assert np.array_equal(played.flat, fresh.flat)
        assert model.loss(*batch(number, rows)) == other.loss(*batch(number, rows))
        weights.flat += 0.01 * played.flat


def test_the_model_makes_two_passes_of_a_kind(backend: Backend) -> None:
    """For a backend that does not say what it calls, the operations themselves are on the tape."""
    cfg = config()
    model = GPT(cfg, cast(Backend, Counting(backend)), Parameters.initial(cfg, 1))
    gradients, others = Parameters(cfg), Parameters(cfg)
    calls = made(model, gradients, 0)
    again = 0 if hasattr(backend, "launches") else calls
    assert [made(model, gradients, number) for number in (1, 2, 3)] == [calls, again, again]
    assert [made(model, others, number) for number in (1, 2, 3)] == [calls, calls, again]
    assert [made(model, gradients, number, scale=0.5) for number in (1, 2, 3)] == [calls, calls, again]
    assert made(model, gradients, 4) == again
    model.loss(*batch(1, rows=B - 1))  # other arrays
    assert [made(model, gradients, number) for number in (1, 2, 3)] == [calls, calls, again]
    for _ in range(tape.KINDS + 3):
        model.loss_and_gradients(*batch(1), Parameters(cfg))
        made(model, gradients, 1)
    assert made(model, gradients, 1) == again  # the one in use stays
    assert len(model.buffers(B, T).tapes._tapes) == tape.KINDS
    model.forget()
    assert made(model, gradients, 1) == calls


def test_a_played_pass_is_not_made_in_the_model(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config()
    model, gradients = GPT(cfg, backend, Parameters.initial(cfg, 1)), Parameters(cfg)
    losses = [model.loss_and_gradients(*batch(1), gradients) for _ in range(2)]
    monkeypatch.setattr(Pass, "forward", None)
    assert [*losses, model.loss_and_gradients(*batch(1), gradients)] == losses[:1] * 3


def test_other_conditions_make_the_pass_anew() -> None:
    """A tape knows how many threads the work was cut for, and holds working memory of one Python thread."""
    backend = get_backend("numba")
    cfg = config()
    model, gradients = GPT(cfg, cast(Backend, Counting(backend)), Parameters.initial(cfg, 1)), Parameters(cfg)
    calls = made(model, gradients, 0)
    found: list[int] = []

    def three() -> list[int]:
        return [made(model, gradients, number) for number in range(3)]

    most = set_threads()
    try:
        assert three() == [calls, 0, 0]
        set_threads(1)
        assert three() == ([calls, calls, 0] if most > 1 else [0, 0, 0])
        set_threads(most)
        assert three() == ([calls, calls, 0] if most > 1 else [0, 0, 0])
    finally:
        set_threads()
    scratch("scores", scratch("scores", 1, np.dtype(np.float32)).size + 1, np.dtype(np.float32))
    assert three() == [calls, calls, 0]
    other = threading.Thread(target=lambda: found.extend(three()))
    other.start()
    other.join()
    assert found == [calls, calls, 0]
    assert three() == [calls, calls, 0]


def test_half_a_pass_is_not_played(backend: Backend) -> None:
    cfg = config()
    counting = Counting(backend)
    model, gradients = GPT(cfg, cast(Backend, counting), Parameters.initial(cfg, 1)), Parameters(cfg)
    calls = made(model, gradients, 0)
    counting.failing = "cross_entropy"
    with pytest.raises(KeyboardInterrupt):
        made(model, gradients, 1)
    counting.failing = ""
    gradients.flat.fill(0)
    assert made(model, gradients, 1) == calls
    fresh = Parameters(cfg)
    GPT(cfg, backend, model.parameters).loss_and_gradients(*batch(1), fresh, dropout=DropoutStream(1, 1))
    assert np.array_equal(gradients.flat, fresh.flat)


def test_batches_are_checked_in_every_pass(backend: Backend) -> None:
    cfg = config()
    model, gradients = GPT(cfg, backend, Parameters.initial(cfg, 1)), Parameters(cfg)
    tokens, targets = batch(1)
    wrong = targets.copy()
    wrong[1, 2] = 7
    for _ in range(4):
        model.loss_and_gradients(tokens, targets, gradients)
        before = gradients.flat.copy()
        with pytest.raises(ContractError, match=r"targets\[1, 2\] is 7; wanted 0 <= id < 7"):
            model.loss_and_gradients(tokens, wrong, gradients)
        with pytest.raises(ContractError, match=r"tokens\[1, 2\] is 7; wanted 0 <= id < 7"):
            model.loss_and_gradients(wrong, targets, gradients)
        with pytest.raises(ContractError, match=r"targets has shape \(1, 8\); wanted \(3, 8\)"):
            model.loss_and_gradients(tokens, targets[:1], gradients)
        assert np.array_equal(gradients.flat, before)


def test_what_is_called_outside_is_not_noted() -> None:
    backend: Any = get_backend("numba")
    array = aligned_zeros((2, 3), "float32")
    backend.relu_forward(array, array)
    with backend.launches() as outer:
        backend.relu_forward(array, array)
        with backend.launches() as inner:
            backend.gelu_forward(array, array)
        backend.relu_forward(array, array)
        other = threading.Thread(target=backend.relu_forward, args=(array, array))
        other.start()
        other.join()
    backend.relu_forward(array, array)
    assert (len(outer), len(inner)) == (2, 1)


def test_others_may_use_the_model_while_it_is_recorded(backend: Backend) -> None:
    """They are given its own backend, and what they call is not on the tape."""
    cfg = config()
    counting = Counting(backend)
    model, gradients = GPT(cfg, cast(Backend, counting), Parameters.initial(cfg, 1)), Parameters(cfg)
    calls, seen = made(model, gradients, 0), list[object]()
    relu, array = get_backend("numba").relu_forward, aligned_zeros((2, 3), "float32")

    def other() -> None:
        seen.append(model.backend)
        relu(array, array)

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return backend.cross_entropy(*arguments, **options)

    counting.cross_entropy = meanwhile  # type: ignore[attr-defined]
    made(model, gradients, 1)
    assert seen == [counting]
    recorded = next(iter(model.buffers(B, T).tapes._tapes.values())).calls
    assert len(recorded) == calls
    assert not any(argument is array for made in recorded for launch in made for argument in launch.arguments)


def test_working_memory_that_grows_while_a_pass_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded holds the old memory: it is recorded once more."""
    backend = get_backend("numba")
    cfg = config()
    counting = Counting(backend)
    model, gradients = GPT(cfg, cast(Backend, counting), Parameters.initial(cfg, 1)), Parameters(cfg)
    calls = made(model, gradients, 0)

    def growing(*arguments: Any, **options: Any) -> Any:
        scratch("scores", scratch("scores", 1, np.dtype(np.float32)).size + 1, np.dtype(np.float32))
        return backend.cross_entropy(*arguments, **options)

    counting.cross_entropy = growing  # type: ignore[attr-defined]
    assert made(model, gradients, 1) == calls - 1
    del counting.cross_entropy  # type: ignore[attr-defined]
    assert [made(model, gradients, number) for number in (2, 3)] == [calls, 0]


def test_a_pass_of_many_calls_is_not_recorded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config()
    model, gradients = GPT(cfg, cast(Backend, Counting(backend)), Parameters.initial(cfg, 1)), Parameters(cfg)
    calls = made(model, gradients, 0)
    monkeypatch.setattr(tape, "MOST_CALLS", calls - 1)
    assert [made(model, gradients, number) for number in (1, 2)] == [calls, calls]
    monkeypatch.setattr(tape, "MOST_CALLS", calls)
    assert made(model, gradients, 1) == calls
    assert made(model, gradients, 2) == (0 if hasattr(backend, "launches") else calls)
    assert len(model.buffers(B, T).tapes._tapes.popitem()[1].calls) == calls
