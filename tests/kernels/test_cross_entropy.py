from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, assert_is_gradient, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend


@pytest.mark.parametrize("case", cases("cross_entropy"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


def test_gradient_by_finite_differences(backend: Backend) -> None:
    N, V, scale = 6, 7, 0.3
    logits, targets = 2 * normal(1, N, V), np.array([0, 6, 3, 3, 1, 5], np.int32)
    losses, dlogits = np.empty(N), np.empty((N, V))

    def loss() -> float:
        backend.cross_entropy(losses, None, logits, targets)
        return scale * float(losses.sum())

    backend.cross_entropy(losses, dlogits, logits, targets, scale=scale)
    assert_is_gradient("logits", dlogits, loss, logits)


def test_equal_logits_cost_log_of_the_vocabulary(backend: Backend, dtype: str) -> None:
    V = 65
    losses = np.empty(3, dtype)
    backend.cross_entropy(losses, None, np.full((3, V), 7.5, dtype), np.array([0, 31, 64], np.int32))
    assert_close("losses", losses, np.full(3, math.log(V)), 8 * EPS[dtype])


def test_huge_logits_stay_finite(backend: Backend, dtype: str) -> None:
    """A confident right guess has loss 0, a confident wrong one the distance between the logits."""
    logits = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4]], dtype)
    losses, dlogits = np.empty(2, dtype), np.empty((2, 3), dtype)
    backend.cross_entropy(losses, dlogits, logits, np.array([0, 2], np.int32))
    assert_close("losses", losses, np.array([0.0, 2e4]), EPS[dtype])
    assert_close("dlogits", dlogits, np.array([[0.0, 0, 0], [1, 0, -1]]), EPS[dtype])


@each_backend
@given(N=st.integers(1, 20), V=st.integers(1, 70), shift=st.floats(-50, 50), seed=st.integers(0, 999))
def test_shift_of_all_logits_does_not_matter(name: str, N: int, V: int, shift: float, seed: int) -> None:
    """It follows that the gradients of a row sum to 0."""
    logits = 3 * normal(seed, N, V)
    targets = np.random.default_rng(seed).integers(0, V, N).astype(np.int32)
    results = []
    for shifted in (logits, logits + shift):
        losses, dlogits = np.empty(N), np.empty((N, V))
        get_backend(name).cross_entropy(losses, dlogits, shifted, targets)
        results.append((losses, dlogits))
    assert_close(f"{name} losses", results[1][0], results[0][0], 1e-13, relative_to=1.0)
    assert_close(f"{name} dlogits", results[1][1], results[0][1], 2e-14, relative_to=1.0)
    assert_close(f"{name} row sums", results[0][1].sum(axis=1), np.zeros(N), 1e-14, relative_to=1.0)
