"""Rotary positions: rotations of the plane that leave lengths, and scores that depend on the distance alone."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, normal

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.config import ModelConfig
from bevia_fast.kernels.contract import Backend
from bevia_fast.model.rotary import context_tables, tables

B, T, NH, H = 2, 7, 3, 4


@pytest.mark.parametrize("case", cases("rotary_forward") + cases("rotary_backward"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


def config(dtype: str = "float64") -> ModelConfig:
    return ModelConfig(ctx=T, dim=2 * H * NH, heads=NH, vocab_size=5, positions="rotary", dtype=dtype)  # type: ignore[arg-type]


def test_gradients_by_finite_differences(backend: Backend) -> None:
    qkv, dout, angles = normal(1, B, T, 6 * NH * H), normal(2, B, T, 6 * NH * H), tables(config(), 3, T)

    def loss() -> float:
        rotated = qkv.copy()
        backend.rotary_forward(rotated, *angles)
        return float((rotated * dout).sum())

    dqkv = dout.copy()
    backend.rotary_backward(dqkv, *angles)
    assert_is_gradient("qkv", dqkv, loss, qkv)


def test_each_pair_is_a_complex_number_times_another(backend: Backend, dtype: str) -> None:
    qkv, angles = normal(1, B, T, 6 * NH * H, dtype=dtype), tables(config(dtype), 0, T)
    pairs = qkv.reshape(B, T, 3, NH, 2, H).astype(np.float64)
    turn = np.exp(1j * np.arange(T)[:, None] * 10_000.0 ** (-np.arange(H) / H))[:, None, None]
    wanted = (pairs[..., 0, :] + 1j * pairs[..., 1, :]) * turn
    wanted[:, :, 2] = pairs[:, :, 2, :, 0] + 1j * pairs[:, :, 2, :, 1]  # values stay as they are
    backend.rotary_forward(qkv, *angles)
    found = qkv.reshape(B, T, 3, NH, 2, H)
    assert_close("first", found[..., 0, :], wanted.real, 4 * EPS[dtype])
    assert_close("second", found[..., 1, :], wanted.imag, 4 * EPS[dtype])


def test_back_is_back(backend: Backend, dtype: str) -> None:
    qkv, angles = normal(1, B, T, 6 * NH * H, dtype=dtype), tables(config(dtype), 1000, T)
    moved = qkv.copy()
    backend.rotary_forward(moved, *angles)
    backend.rotary_backward(moved, *angles)
    assert_close("qkv", moved, qkv, 4 * EPS[dtype])


def test_scores_depend_on_the_distance_alone(backend: Backend) -> None:
    """The same text 1,000,000 positions later: other queries and keys, the same weights."""
    qkv = normal(1, B, T, 6 * NH * H)
    maps = []
    for first in (0, 1_000_000):
        moved, weights = qkv.copy(), np.empty((B, NH, T, T))
        backend.rotary_forward(moved, *tables(config(), first, T))
        backend.attention_weights(weights, moved)
        maps.append(weights)
    assert_close("weights", maps[1], maps[0], 1e-9)  # an angle of a million radians has an error of 1e-10
    still = np.empty((B, NH, T, T))
    backend.attention_weights(still, qkv)
    assert np.abs(still - maps[0]).max() > 0.1


def test_tables_are_the_angles(dtype: str) -> None:
    cosines, sines = tables(config(dtype), 5, 3)
    assert cosines.shape == sines.shape == (3, H)
    assert cosines.dtype == dtype
    angles = np.array([[t * 10_000.0 ** (-i / H) for i in range(H)] for t in (5, 6, 7)])
    assert_close("cosines", cosines, np.cos(angles), EPS[dtype])
    assert_close("sines", sines, np.sin(angles), EPS[dtype])
    shared = context_tables(config(dtype), T)
    assert shared is context_tables(config(dtype), T)
    with pytest.raises(ValueError, match="read-only"):
        shared[0][0, 0] = 2.0
