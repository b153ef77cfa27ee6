"""Muon: what an orthogonal update is, and that both backends take the same one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import EPS, assert_backends_agree, assert_close, each_backend, normal
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, make_arguments
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend, ContractError, MatrixAt
from bevia_fast.kernels.newton_schulz import COEFFICIENTS, MUON_EPS

Array = NDArray[Any]
USUAL: dict[str, Any] = {"learning_rate": 0.5, "beta": 0.9, "weight_decay": 0.1}


@pytest.mark.parametrize("case", cases("muon"), ids=str)
def test_numba_agrees_with_numpy(case: Case, dtype: str) -> None:
    assert_backends_agree(case, dtype)


def by_singular_values(u: Array) -> Array:
    """The update of the whole matrix u, from its singular values: they are what the polynomials are for."""
    u = u.astype(np.float64)
    left, values, right = np.linalg.svd(u, full_matrices=False)
    values = values / max(float(np.linalg.norm(u)), MUON_EPS)
    for a, b, c in COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    return np.asarray((left * values) @ right)


def steps(backend: Backend, start: Array, gradients: Array, **options: Any) -> tuple[Array, Array]:
    """Weights and momentum after a step for each of the gradients (steps, rows, columns) of one matrix."""
    whole = (MatrixAt(0, *start.shape, start.shape[1]),)
    weights, momentum = start.copy().ravel(), np.zeros(start.size, start.dtype)
    for gradient in gradients:
        flat = gradient.copy().ravel()
        backend.muon(weights, flat, momentum, matrices=whole, **{**USUAL, **options})
        assert not flat.any()
    return weights.reshape(start.shape), momentum.reshape(start.shape)


@each_backend
@given(
    count=st.integers(1, 4), rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 999),
    beta=st.floats(0, 0.99), decay=st.floats(0, 1), scale=st.floats(0.01, 1),
)  # fmt: skip
def test_is_the_formula_with_singular_values(
    name: str, count: int, rows: int, columns: int, seed: int, beta: float, decay: float, scale: float
) -> None:
    start, gradients = normal(seed, rows, columns), normal(seed + 1, count, rows, columns)
    expected, mean = start.copy(), np.zeros_like(start)
    for gradient in gradients:
        g = scale * gradient
        mean = beta * mean + (1 - beta) * g
        update = max(1, columns / rows) ** 0.5 * by_singular_values(beta * mean + (1 - beta) * g)
        expected = expected - 0.5 * (update + decay * expected)
    options = {"beta": beta, "weight_decay": decay, "gradient_scale": scale}
    weights, momentum = steps(get_backend(name), start, gradients, **options)
    assert_close(f"{name} parameters", weights, expected, 1e-10)
    assert_close(f"{name} momentum", momentum, mean, 1e-13)


@pytest.mark.parametrize("shape", [(48, 48), (24, 96), (96, 24)])
def test_update_is_nearly_orthogonal_however_small_the_directions(
    backend: Backend, dtype: str, shape: tuple[int, int]
) -> None:
    """Singular values that differ by a factor of 50 all come out near 1."""
    left, _, right = np.linalg.svd(normal(1, *shape), full_matrices=False)
    gradient = ((left * np.geomspace(1e-3, 5e-2, min(shape))) @ right).astype(dtype)
    start = np.zeros(shape, dtype)
    update, _ = steps(backend, start, gradient[None], learning_rate=1.0)
    values = np.linalg.svd(update, compute_uv=False) / max(1, shape[1] / shape[0]) ** 0.5
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_the_size_of_a_gradient_does_not_matter(backend: Backend, dtype: str) -> None:
    """Neither a huge one, whose squares are infinite in float32, nor a small one; and 0 stays 0."""
    gradient, start = normal(2, 20, 33).astype(dtype), np.zeros((20, 33), dtype)
    usual, _ = steps(backend, start, gradient[None])
    sizes = (1e-4, 1e4, 1e37) if dtype == "float32" else (1e-4, 1e4, 1e150)
    for size in sizes:
        found, _ = steps(backend, start, np.asarray([gradient * size], dtype))
        assert_close(f"times {size}", found, usual, 1e4 * EPS[dtype])
    for size in (0.0, 1e-30, -0.0):
        found, _ = steps(backend, start, np.asarray([gradient * size], dtype))
        assert np.abs(found).max() <= 1e-20
        assert np.isfinite(found).all()


def test_weights_decay_without_a_gradient(backend: Backend) -> None:
    """A decay of 1e-6 is not rounded away: as a factor 1 - 1e-6 in float32 it would be 5 % too small."""
    start = 0.5 + np.abs(normal(1, 300, 300, dtype="float32"))
    none = np.zeros((1, 300, 300), np.float32)
    found, _ = steps(backend, start, none, learning_rate=1e-5)
    before = start.astype(np.float64)
    assert_close("decay", np.mean((before - found) / before), 1e-6, 2e-3)


def test_matrices_are_apart(backend: Backend, dtype: str) -> None:
    """Three matrices side by side, as q, k and v, are updated as if each were alone; what is between them stays."""
    rows, columns, P = 12, 9, 500
    side_by_side = tuple(MatrixAt(7 + j * columns, rows, columns, 4 * columns) for j in range(3))
    arrays = [normal(seed, P, dtype=dtype) for seed in range(3)]
    together = [array.copy() for array in arrays]
    backend.muon(*together, matrices=side_by_side, **USUAL)
    touched = np.zeros(P, bool)
    for matrix in side_by_side:
        alone = [matrix.of(array).copy() for array in arrays]
        backend.muon(*(array.ravel() for array in alone), matrices=(MatrixAt(0, rows, columns, columns),), **USUAL)
        for name, one, all_of_them in zip(("parameters", "gradients", "momentum"), alone, together, strict=True):
            np.testing.assert_array_equal(matrix.of(all_of_them), one, err_msg=name)
        matrix.of(touched)[...] = True
    for before, after in zip(arrays, together, strict=True):
        np.testing.assert_array_equal(after[~touched], before[~touched])


@pytest.mark.parametrize(
    ("matrices", "problem"),
    [
        ((MatrixAt(0, 4, 5, 5), MatrixAt(18, 2, 2, 2)), r"two of the matrices overlap"),
        ((MatrixAt(0, 2, 5, 10), MatrixAt(4, 2, 5, 10)), r"two of the matrices overlap"),
        ((MatrixAt(1, 6, 5, 5),), r"matrices\[0\] is 6 x 5 from element 1 on, with rows 5 apart; .* P = 30 elements"),
        ((MatrixAt(0, 1, 1, 1), MatrixAt(-1, 2, 2, 2)), r"matrices\[1\] is 2 x 2 from element -1"),
        ((MatrixAt(0, 2, 5, 4),), r"matrices\[0\] is 2 x 5"),
        ((MatrixAt(0, 0, 5, 5),), r"matrices\[0\] is 0 x 5"),
    ],
)
def test_matrices_outside_of_the_arrays_are_refused(
    backend: Backend, matrices: tuple[MatrixAt, ...], problem: str
) -> None:
    arrays = [np.zeros(30) for _ in range(3)]
    with pytest.raises(ContractError, match=f"muon: {problem}"):
        backend.muon(*arrays, matrices=matrices, **USUAL)


def test_no_matrices_are_nothing_to_do(backend: Backend) -> None:
    arrays = [np.ones(30) for _ in range(3)]
    backend.muon(*arrays, matrices=(), **USUAL)
    assert all((array == 1).all() for array in arrays)


def test_cost_counts_the_symmetric_products_by_half() -> None:
    """Before the restart X X^T, two squares, two products for the second X X^T and one for P, then P X; after it X X^T,
    three squares, four products for further X X^T and two for P, then P X."""
    n = 1000
    square, wide = (
        OPERATIONS["muon"].cost_of({"P": m * n}, (), "float32", {"matrices": (MatrixAt(0, n, m, m),)}).flops
        for m in (n, 4 * n)
    )
    half, whole = n * n * (n + 1), 2 * n**3
    assert square == (1 + 2 + 2 + 1 + 1 + 3 + 4 + 2) * half + 2 * whole
    assert wide == (4 + 2 + 2 + 1 + 4 + 3 + 4 + 2) * half + 8 * whole


def test_nan_spreads_over_its_matrix_only(backend: Backend, dtype: str) -> None:
    case = Case("muon", {"P": 200}, options=USUAL | {"matrices": (MatrixAt(0, 9, 11, 11), MatrixAt(99, 10, 10, 10))})
    for name in ("gradients", "momentum"):
        arguments = make_arguments(case, dtype)
        arguments[name][5] = np.nan
        backend.muon(**arguments)
        assert np.isnan(arguments["parameters"][:99]).all()
        assert np.isfinite(arguments["parameters"][99:]).all()
