"""The cross-check finds wrong kernels, and accepts right ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import tiny_config

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.agreement.comparison import worst_of
from bevia_fast.agreement.crosscheck import LiveCrosscheck, compare_gradients, gradient_tolerance
from bevia_fast.agreement.sweep import check_kernels
from bevia_fast.errors import StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.memory import training_memory
from bevia_fast.training import opening
from bevia_fast.training.step import Trainer
from bevia_fast.training.twins import CURVE_TOLERANCE, check_training

SMALL = ModelConfig(ctx=12, dim=16, layers=2, heads=2, vocab_size=7, dropout=0.1)
TOKENS = (np.arange(1000) ** 2 % 7).astype(np.int32)


def broken(**kernels: Any) -> Backend:
    """The NumPy backend with some kernels replaced."""
    numpy: Any = get_backend("numpy")
    return SimpleNamespace(**{name: getattr(numpy, name) for name in (*OPERATIONS, "name")} | kernels)  # type: ignore[return-value]


def forgets_a_term(dinp: Any, dweight: Any, dbias: Any, *args: Any, **options: Any) -> None:
    get_backend("numpy").linear_backward(dinp, dweight, dbias, *args, **options)
    if dweight.shape == (16, 64):  # the expansion of an MLP
        dweight[3, 5] += 0.5


def crosscheck(model: ModelConfig, a: Backend, b: Backend) -> Any:
    config = TrainConfig(model=model, batch=3, steps=4, accumulate=2)
    trainer = Trainer(config, model, a, TOKENS)
    live = LiveCrosscheck(trainer.weights, b)
    for step in (1, 2):
        loss = trainer.backward(step)
        before = trainer.gradients.flat.copy()
        found = live.compare(step, loss, trainer.gradients, trainer.microbatches(step))
        assert np.array_equal(trainer.gradients.flat, before)
        trainer.update(step, loss)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"norm": "post", "activation": "relu", "tie": False, "bias": False}], ids=str)
def test_the_backends_agree_on_a_model(dtype: Any, options: dict[str, Any]) -> None:
    model = replace(SMALL, dtype=dtype, **options)
    found = crosscheck(model, get_backend("numba"), get_backend("numpy"))
    assert 0 < found.error < gradient_tolerance(model)


def test_a_wrong_gradient_is_named_with_index_and_both_values() -> None:
    with pytest.raises(StoppedRun) as caught:
        crosscheck(SMALL, broken(linear_backward=forgets_a_term), get_backend("numpy"))
    message = str(caught.value)
    assert message.startswith("Stopped at step 1: the gradient of h.")
    assert "mlp.c_fc.weight[3, 5] is " in message
    assert " with the numpy backend" in message


def test_a_wrong_loss_and_nan_are_found() -> None:
    numpy = get_backend("numpy")

    def cross_entropy(losses: Any, *args: Any, **options: Any) -> None:
        numpy.cross_entropy(losses, *args, **options)
        losses *= 1.01

    with pytest.raises(StoppedRun, match="step 1: loss is"):
        crosscheck(SMALL, broken(cross_entropy=cross_entropy), numpy)

    def gelu_nan(dinp: Any, dweight: Any, *args: Any, **options: Any) -> None:
        numpy.linear_backward(dinp, dweight, *args, **options)
        dweight[0, 0] = np.nan

    for a, b in ((broken(linear_backward=gelu_nan), numpy), (numpy, broken(linear_backward=gelu_nan))):
        with pytest.raises(StoppedRun, match="nan"):
            crosscheck(SMALL, a, b)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["a", "b"])
def test_nan_and_infinity_in_either_gradient_are_found(value: float, place: str) -> None:
    sides = {name: Parameters.initial(SMALL, 1) for name in "ab"}
    sides[place]["h.1.ln_2.bias"][3] = value
    wrong = [found for found in compare_gradients(sides["a"], sides["b"]) if not found.ok]
    assert [(found.tensor, found.index, found.error) for found in wrong] == [("h.1.ln_2.bias", (3,), np.inf)]


def test_a_preactivation_on_either_side_of_zero_does_not_stop_a_relu() -> None:
    """These weights and this batch have some of them; a wrong kernel is found nevertheless."""
    model = ModelConfig(activation="relu", vocab_size=65)
    weights = Parameters.initial(model, 29)
    tokens, targets = np.random.default_rng(29).integers(0, 65, (2, 12, model.ctx)).astype(np.int32)
    numpy = get_backend("numpy")

    def wrong(dinp: Any, dweight: Any, *args: Any, **options: Any) -> None:
        before = dweight.copy()
        numpy.linear_backward(dinp, dweight, *args, **options)
        dweight += 0.03 * (dweight - before)

    gradients = []
    for backend in (numpy, get_backend("numba"), broken(linear_backward=wrong)):
        gradients.append(Parameters(model))
        GPT(model, backend, weights).loss_and_gradients(tokens, targets, gradients[-1])
    expected, found, bad = gradients
    assert worst_of(compare_gradients(found, expected)).ok
    assert not worst_of(compare_gradients(bad, expected)).ok
    name = max(expected, key=lambda name: np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max())
    print(name, np.abs(found[name] - expected[name]).max() / np.abs(expected[name]).max())
    found[name][0] = np.nan
    assert worst_of(compare_gradients(found, expected)).error == np.inf


def test_it_logs_differences_and_stops_a_run_that_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "t.txt"
    text.write_text("to be or not to be, that is the question\n" * 20)
    config = TrainConfig(
        data=[str(text)], out=str(tmp_path / "good"), model=replace(SMALL, vocab_size=0), steps=5, batch=2,
        crosscheck_every=2, sample_every=0, backend="numpy",
    )  # fmt: skip
    history = train(config).history
    assert [record["step"] for record in history if "crosscheck" in record] == [2, 4]
    assert all(0 < record["crosscheck"] < 1e-4 for record in history if "crosscheck" in record)

    real = opening.open_backend
    monkeypatch.setattr(
        opening, "open_backend",
        lambda name, threads=0: broken(linear_backward=forgets_a_term) if name == "numpy" else real(name, threads),
    )  # fmt: skip
    with pytest.raises(StoppedRun, match="Stopped at step 2: the gradient of h"):
        train(replace(config, out=str(tmp_path / "bad")))


def test_with_recompute_the_other_model_keeps_as_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LiveCrosscheck] = []

    class Watched(LiveCrosscheck):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(opening, "LiveCrosscheck", Watched)
    history = train(tiny_config(tmp_path, steps=2, crosscheck_every=1, recompute=True)).history
    assert [0 < record["crosscheck"] < 1e-4 for record in history[1:]] == [True, True]
    assert [live.model.recompute for live in made] == [True]
    usual, less = (
        training_memory(SMALL, 2, "numpy", recompute=recompute, crosscheck=True) for recompute in (False, True)
    )
    assert less.crosscheck < usual.crosscheck


def test_check_finds_a_broken_kernel_and_passes_a_good_one() -> None:
    numpy, numba = get_backend("numpy"), get_backend("numba")

    def gelu_forward(out: Any, inp: Any) -> None:
        numpy.gelu_forward(out, inp)
        out.reshape(-1)[-1] *= 1.001

    rows = list(check_kernels(broken(gelu_forward=gelu_forward), numpy, quick=True))
    assert {row.what for row in rows if not row.ok} == {"gelu_forward"}
    assert {row.what for row in rows} == set(OPERATIONS)
    bad = next(row for row in rows if not row.ok)
    assert bad.share > 1
    rows = [row for dtype in ("float32", "float64") for row in check_training(numba, numpy, dtype, steps=5)]  # type: ignore[arg-type]
    assert all(row.ok for row in rows), [str(row.worst) for row in rows]


def test_the_curves_stay_together_for_200_steps() -> None:
    """In float32, on data that can be learnt: the loss falls by far more than the curves may differ."""
    rows = list(check_training(get_backend("numba"), get_backend("numpy"), "float32", steps=200))
    assert rows[-1].worst.error < CURVE_TOLERANCE["float32"] == 1e-3
    assert rows[-1].ok
