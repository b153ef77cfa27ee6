from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend

USUAL: dict[str, Any] = {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("case", cases("adamw") + cases("squared_norm"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


@each_backend
@given(
    steps=st.integers(1, 6), size=st.integers(1, 70), seed=st.integers(0, 999), share=st.floats(0, 1),
    beta1=st.floats(0, 0.99), beta2=st.floats(0.5, 0.999), decay=st.floats(0, 1), scale=st.floats(0.01, 1),
)  # fmt: skip
def test_is_the_textbook_loop(
    name: str, steps: int, size: int, seed: int, share: float, beta1: float, beta2: float, decay: float, scale: float
) -> None:
    """One number at a time, in Python floats."""
    decayed, rate, eps = round(share * size), 0.01, 1e-8
    start, gradients = normal(seed, size), normal(seed + 1, steps, size)
    expected = []
    for i in range(size):
        w, m, v = float(start[i]), 0.0, 0.0
        for step in range(1, steps + 1):
            g = float(gradients[step - 1, i]) * scale
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            update = m / (1 - beta1**step) / (math.sqrt(v / (1 - beta2**step)) + eps)
            w -= rate * (update + (decay * w if i < decayed else 0.0))
        expected.append(w)
    weights, moments = start.copy(), np.zeros((2, size))
    for step in range(1, steps + 1):
        get_backend(name).adamw(
            weights, gradients[step - 1].copy(), *moments, step=step, decayed=decayed, learning_rate=rate,
            beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay, gradient_scale=scale,
        )  # fmt: skip
    assert_close(f"{name} parameters", weights, np.array(expected), 1e-11)


def test_first_step_has_the_size_of_the_learning_rate(backend: Backend, dtype: str) -> None:
    """For any size of the gradient: after bias correction m/sqrt(v) is its sign."""
    gradients = np.array([1e-3, -5.0, 700.0], dtype)
    weights, moments = np.zeros(3, dtype), np.zeros((2, 3), dtype)
    backend.adamw(weights, gradients, *moments, step=1, decayed=3, **USUAL)
    assert_close("parameters", weights, np.array([-0.01, 0.01, -0.01]), 2e-5)


def test_means_begin_with_the_right_share_of_the_gradient(backend: Backend, dtype: str) -> None:
    """1 - beta is small; computed from beta as a float32 it would lose its last digits."""
    gradients, moments = normal(4, 100, dtype=dtype), np.zeros((2, 100), dtype)
    expected = gradients.astype(np.float64)
    backend.adamw(np.zeros(100, dtype), gradients, *moments, step=1, decayed=0, **USUAL | {"beta2": 0.9999})
    np.testing.assert_allclose(moments[0], 0.1 * expected, rtol=2 * EPS[dtype])
    np.testing.assert_allclose(moments[1], (1 - 0.9999) * expected**2, rtol=3 * EPS[dtype])


def test_gradients_are_zeroed_and_only_the_first_are_decayed(backend: Backend, dtype: str) -> None:
    weights, gradients, moments = np.ones(101, dtype), np.zeros(101, dtype), np.zeros((2, 101), dtype)
    gradients[50] = 1
    backend.adamw(weights, gradients, *moments, step=1, decayed=37, **USUAL)
    assert not gradients.any()
    assert_close("decayed", weights[:37], np.full(37, 0.999), 2 * EPS[dtype])
    np.testing.assert_array_equal(np.delete(weights[37:], 13), np.ones(63, dtype))


def test_a_small_decay_is_not_rounded_away(backend: Backend) -> None:
    """As a factor 1 - 1e-6 of the weights, rounded to float32, a decay of 1e-6 would be 1.3 % too large."""
    weights, moments = 0.5 + np.abs(normal(1, 100_000, dtype="float32")), np.zeros((2, 100_000), np.float32)
    before = weights.astype(np.float64)
    settings = {**USUAL, "learning_rate": 1e-5}
    backend.adamw(weights, np.zeros(100_000, np.float32), *moments, step=1, decayed=100_000, **settings)
    # each weight is rounded to within 0.06 of the decay; the mean of so many is not
    assert_close("decay", np.mean((before - weights) / before), 1e-6, 2e-3)


def test_squared_norm_is_folded_in_float64(backend: Backend) -> None:
    """2^24 + 1 is not a float32: ones added to it in float32 would be lost."""
    gradients = np.ones(70_001, np.float32)
    gradients[0] = 4096.0
    total = backend.squared_norm(gradients)
    assert isinstance(total, float)
    assert total == 2**24 + 70_000


def test_squared_norm_sees_nan_and_infinity(backend: Backend, dtype: str) -> None:
    for value in (np.nan, np.inf):
        for place in (0, 500, 999):
            gradients = np.ones(1000, dtype)
            gradients[place] = value
            assert not math.isfinite(backend.squared_norm(gradients))
