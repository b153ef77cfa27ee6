"""Training with Muon: which weights it updates, what it saves, and that a resumed run ends with the same bits."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import TINY, Acting, result, tiny_config

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.agreement.crosscheck import LiveCrosscheck
from bevia_fast.errors import ConfigError, StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend, MatrixAt
from bevia_fast.model.optimizer import Optimizer, Rates
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.checkpoint import newest_good, stored_config
from bevia_fast.runs.modelfile import checkpoint_layout, load_model
from bevia_fast.training.step import Trainer

MODEL = ModelConfig(ctx=6, dim=8, layers=2, heads=2, vocab_size=11)
TOKENS = (np.arange(2000) ** 2 % 11).astype(np.int32)


@pytest.mark.parametrize("options", [{}, {"tie": False}, {"bias": False}, {"dtype": "float64", "dim": 10}])
def test_the_matrices_of_the_layers_lie_together(options: dict[str, Any]) -> None:
    """With q, k and v apart, each where its name says; and nothing else."""
    weights = Parameters(replace(MODEL, **options))
    numbers = np.arange(weights.flat.size, dtype=weights.flat.dtype)
    weights.flat[...] = numbers
    C, found = weights.config.dim, list[Any]()
    for layer in range(2):
        qkv = weights[f"h.{layer}.attn.c_attn.weight"]
        found += [qkv[:, :C], qkv[:, C : 2 * C], qkv[:, 2 * C :]]
        found += [weights[f"h.{layer}.{name}.weight"] for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
    placed = [matrix.of(weights.flat[weights.hidden]) for matrix in weights.hidden_matrices]
    assert len(placed) == len(found) == 12
    for one, other in zip(placed, found, strict=True):
        np.testing.assert_array_equal(one, other)
    rest = Parameters(weights.config, hidden=False)
    assert set(rest) == {name for name in weights if not (name.startswith("h.") and weights[name].ndim == 2)}
    left = np.delete(numbers, np.r_[weights.hidden])
    for name in rest:  # AdamW's second moment has the same gaps
        np.testing.assert_array_equal(left[_places(rest, name)].reshape(rest[name].shape), weights[name])


def _places(parameters: Parameters, name: str) -> Any:
    start = parameters[name].__array_interface__["data"][0] - parameters.flat.__array_interface__["data"][0]
    at = start // parameters.flat.itemsize
    return slice(at, at + parameters[name].size)


@pytest.mark.parametrize("tie", [True, False])
def test_each_weight_is_updated_by_its_optimizer(backend: Backend, tie: bool) -> None:
    """Embeddings, head, gains and biases as AdamW alone updates them, the rest as Muon updates each matrix."""
    config = replace(MODEL, tie=tie, dtype="float64")
    weights, rates = Parameters.initial(config, 3), Rates(0.9, 0.95, 1e-8, 0.1, 0.8)
    random = np.random.default_rng(1)
    both, alone = ((Parameters.initial(config, 3), Optimizer.new(name, config)) for name in ("muon", "adamw"))  # type: ignore[arg-type]
    matrices = {name: [view.copy().ravel(), np.zeros(view.size)] for name, view in weights.items()}
    for step in range(1, 4):
        gradients = Parameters(config)
        for view in gradients.values():
            view[...] = random.normal(size=view.shape)
        for name, (w, m) in matrices.items():
            if name.startswith("h.") and weights[name].ndim == 2:
                rows, columns = weights[name].shape
                each = columns // 3 if "c_attn" in name else columns
                places = tuple(MatrixAt(j, rows, each, columns) for j in range(0, columns, each))
                g = gradients[name].copy().ravel()
                given = {"learning_rate": 0.3, "beta": 0.8, "weight_decay": 0.1, "gradient_scale": 0.5}
                backend.muon(w, g, m, matrices=places, **given)
        for w, optimizer in (both, alone):
            left = Parameters(config)
            left.flat[...] = gradients.flat
            optimizer.update(backend, w, left, rates, step=step, learning_rate=0.01, muon_rate=0.3, gradient_scale=0.5)
            assert not left.flat.any()
    for name, view in both[0].items():
        hidden = name.startswith("h.") and view.ndim == 2
        np.testing.assert_array_equal(view, matrices[name][0].reshape(view.shape) if hidden else alone[0][name])
        assert not np.array_equal(view, weights[name]) or not view.any()


def test_the_rate_of_muon_follows_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(model=MODEL, optimizer="muon", batch=2, steps=20, warmup=4, lr=1e-2, min_lr=2e-3, muon_lr=0.5)
    trainer, found = Trainer(config, MODEL, get_backend("numpy"), TOKENS), []
    usual = trainer.optimizer.update

    def noting(*arguments: Any, **options: Any) -> None:
        found.append((options["learning_rate"], options["muon_rate"]))
        usual(*arguments, **options)

    monkeypatch.setattr(trainer.optimizer, "update", noting)
    for step in range(1, 21):
        trainer.update(step, trainer.backward(step))
    assert found[0] == pytest.approx((1e-2 / 4, 0.5 / 4))
    assert found[3] == pytest.approx((1e-2, 0.5))
    assert found[-1] == pytest.approx((2e-3, 0.1))


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, backend_name: Any) -> None:
    options: dict[str, Any] = {"optimizer": "muon", "muon_lr": 0.05, "muon_momentum": 0.7, "backend": backend_name}
    whole = train(tiny_config(tmp_path, "whole", **options))
    for step in (1, 4, 9):
        run = train(
            tiny_config(tmp_path, f"run-{step}", **options),
            Acting(step, lambda: os.kill(os.getpid(), signal.SIGINT)),
        )
        assert result(run.folder)[0] == step
        train(stored_config(run.folder))
        assert result(run.folder) == result(whole.folder)
    checkpoint = newest_good(whole.folder)[0]
    config = checkpoint.config
    assert (config.optimizer, config.muon_lr, config.muon_momentum) == ("muon", 0.05, 0.7)
    assert np.abs(checkpoint.tensors["first"]["h.0.mlp.c_fc.weight"]).max() > 0  # Muon's momentum
    assert "h.0.mlp.c_fc.weight" not in checkpoint.tensors["second"]
    assert load_model(checkpoint.path)[0].flat.tobytes() == checkpoint.tensors["weights"].flat.tobytes()


@pytest.mark.usefixtures("quick_runs")
def test_a_run_keeps_its_optimizer(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, steps=3))
    for name, value in (("optimizer", "muon"), ("muon_lr", 0.5), ("muon_momentum", 0.5)):
        with pytest.raises(ConfigError, match=f"{name} is {value}; .* which cannot be changed"):
            train(replace(stored_config(run.folder), **{name: value}))  # type: ignore[arg-type]


def test_the_tensors_of_a_checkpoint_are_those_of_its_optimizer() -> None:
    usual, muon = (checkpoint_layout(TINY, name) for name in ("adamw", "muon"))
    left_out = usual.keys() - muon.keys()
    assert not muon.keys() - usual.keys()
    assert all(name.startswith("second.h.") and name.endswith(".weight") for name in left_out)
    assert len(left_out) == 4 * TINY.layers
    with pytest.raises(ValueError, match="its optimizer is unknown"):
        checkpoint_layout(TINY, "sgd")


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"optimizer": "sgd"}, "optimizer is 'sgd'; it must be one of adamw, muon"),
     ({"muon_lr": 0.0}, "muon_lr is 0.0; it must be a finite number greater than 0"),
     ({"muon_momentum": 1.0}, "muon_momentum is 1.0; it must be at least 0 and less than 1")],
)  # fmt: skip
def test_impossible_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        TrainConfig(**options)


def wrong_muon(*arguments: Any, **options: Any) -> None:
    """The update of one matrix is a little too large."""
    weights = arguments[0]
    before = options["matrices"][3].of(weights).copy()
    get_backend("numpy").muon(*arguments, **options)
    after = options["matrices"][3].of(weights)
    after += 0.05 * (after - before)


def crosscheck_of(trainer: Trainer, other: Backend, step: int) -> Any:
    live = LiveCrosscheck(trainer.weights, other)
    loss = trainer.backward(step)
    norm, before = trainer.norm(), [part.flat.copy() for part in (trainer.weights, trainer.gradients, trainer.first)]
    try:
        return live.compare_update(
            step, trainer.state, trainer.backend, lambda backend, state: trainer.apply(backend, state, step, norm)
        )
    finally:
        for part, array in zip((trainer.weights, trainer.gradients, trainer.first), before, strict=True):
            np.testing.assert_array_equal(part.flat, array)
        trainer.update(step, loss)


@pytest.mark.parametrize("steps", [100, 1])  # of warmup: at first the change is hardly more than the rounding
def test_the_cross_check_compares_updates(dtype: Any, steps: int) -> None:
    model = replace(MODEL, dim=24, dtype=dtype)
    config = TrainConfig(model=model, optimizer="muon", batch=4, steps=200, warmup=steps)
    trainer = Trainer(config, model, get_backend("numba"), TOKENS)
    for step in range(1, 12):
        assert crosscheck_of(trainer, get_backend("numpy"), step).share < 0.5
    numpy: Any = get_backend("numpy")
    kernels = {name: getattr(numpy, name) for name in (*OPERATIONS, "name")}
    broken: Any = SimpleNamespace(**kernels | {"muon": wrong_muon})
    with pytest.raises(StoppedRun, match=r"step 12: after the update h\.0\.attn\.c_proj\.weight\[.*numpy backend"):
        crosscheck_of(trainer, broken, 12)


def test_the_cross_check_forgives_the_rounding_of_large_weights() -> None:
    """A change of 1e-6 to a weight of 10 is rounded away; the backends need not round to the same side."""
    model = replace(MODEL, dim=24)
    config = TrainConfig(model=model, optimizer="muon", batch=4, steps=200, warmup=100, muon_lr=3e-4)
    trainer = Trainer(config, model, get_backend("numba"), TOKENS)
    trainer.weights.flat[...] *= 100
    assert crosscheck_of(trainer, get_backend("numpy"), 1).ok


@pytest.mark.usefixtures("quick_runs")
def test_a_cross_checked_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    usual = train(tiny_config(tmp_path, "usual", optimizer="muon"))
    checked = train(tiny_config(tmp_path, "checked", optimizer="muon", crosscheck_every=2))
    digests = [newest_good(run.folder)[0].tensors["weights"].flat.tobytes() for run in (usual, checked)]
    assert digests[0] == digests[1]
