"""The forecast of a step's time, and the small model that it times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bevia_fast.config import BackendName, ModelConfig
from bevia_fast.kernels import get_backend
from bevia_fast.planning.forecast import Forecast, small_model
from bevia_fast.planning.rehearsal import rehearse

MODEL = ModelConfig(ctx=64, dim=32, layers=2, heads=2, vocab_size=65)
pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_forecast_with_rotary_positions(backend: BackendName) -> None:
    """The embedding only copies then, and costs no floating-point operations."""
    model = replace(MODEL, positions="rotary")
    forecast = Forecast(model, 4, get_backend(backend))
    one = forecast.seconds(rehearse(model, 4))
    assert 0 < one < 10
    assert forecast.seconds(rehearse(model, 40)) > 1.5 * one


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_forecast_grows_with_the_step(backend: BackendName) -> None:
    model = replace(MODEL, dropout=0.1, norm="post", activation="relu")
    forecast = Forecast(model, 4, get_backend(backend))
    one = forecast.seconds(rehearse(model, 4))
    assert 0 < one < 10
    assert forecast.seconds(rehearse(replace(model, layers=20), 4)) > 3 * one
    assert forecast.seconds(rehearse(model, 40)) > 1.5 * one
    assert forecast.seconds(rehearse(model, 4, accumulate=3)) > 1.5 * one
    forecast = Forecast(model, 4, get_backend(backend), "muon")
    one = forecast.seconds(rehearse(model, 4, optimizer="muon"))
    assert 0 < one < 10
    assert forecast.seconds(rehearse(replace(model, layers=20), 4, optimizer="muon")) > 3 * one
    # a context longer than the small model's, so that attention is timed alone
    long = replace(model, ctx=8192)
    forecast = Forecast(long, 1, get_backend(backend))
    assert forecast.seconds(rehearse(replace(long, ctx=1 << 17), 1)) > 4 * forecast.seconds(rehearse(long, 1))


@pytest.mark.parametrize(
    ("dim", "heads", "dtype"),
    [(768, 3, "float32"), (1536, 6, "float32"), (3072, 12, "float32"), (576, 3, "float64"), (768, 12, "float32")],
)
def test_the_small_model_makes_all_calls_of_the_real_one(dim: int, heads: int, dtype: Any) -> None:
    """No matter how much smaller its weights are."""
    for ctx in (64, 2048, 8 * dim - 1, 8 * dim):
        config = replace(MODEL, ctx=ctx, dim=dim, heads=heads, dtype=dtype)
        small, sequences = small_model(config, 1, "numba")
        called, wanted = (
            {call.operation for call, _ in rehearse(model, batch).calls}
            for model, batch in ((small, sequences), (config, 1))
        )
        assert called >= wanted, ctx


@pytest.mark.parametrize("dim", [2, 3002, 5002, 5006])
def test_the_small_model_of_one_with_rotary_positions_has_pairs(dim: int) -> None:
    """However often the size of its head is halved."""
    small, _ = small_model(replace(MODEL, dim=dim, heads=1, positions="rotary"), 1, "numba")
    assert small.head_size % 2 == 0
    assert {"rotary_forward", "rotary_backward"} <= {call.operation for call, _ in rehearse(small, 1).calls}
