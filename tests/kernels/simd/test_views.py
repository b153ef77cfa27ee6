"""What slices of views mean: the same as NumPy's slices of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bevia_fast.kernels.numba_jit._runtime.jit import device, kernel
from bevia_fast.kernels.numba_jit._runtime.target import TARGET
from bevia_fast.kernels.numba_jit._simd.packing import pack
from bevia_fast.kernels.numba_jit._simd.views import causal, panel, panels, whole

Array = NDArray[Any]


@device
def elements(out: Any, m: Any) -> Any:
    """Write the elements of a matrix to the beginning of `out`, row by row; return its shape."""
    for i in range(m.rows):
        for j in range(m.columns):
            out[i * m.columns + j] = m[i : i + 1, j:].T[0][0]  # along the rows of m elements need not be adjacent
    return m.rows, m.columns


@kernel(parallel=False)
def _cut(out: Array, array: Array, i: int, j: int, k: int, m: int) -> Any:
    return elements(whole(out), whole(array)[i:j, k:m])


@kernel(parallel=False)
def _cut_transpose(out: Array, array: Array, i: int, j: int, k: int, m: int) -> Any:
    return elements(whole(out), whole(array).T[k:m, i:j])


@kernel(parallel=False)
def _cut_again(out: Array, array: Array, i: int, j: int, k: int, m: int) -> Any:
    return elements(whole(out), whole(array)[i:j][:, k:m][1:, 1:])


@kernel(parallel=False)
def _cut_row(out: Array, array: Array, i: int, j: int) -> Any:
    row, target = whole(array)[i][j:], whole(out)
    for n in range(row.size):
        target[n] = row[n]
    return row.size


@kernel(parallel=False)
def _cut_panels(out: Array, memory: Array, array: Array, width: int, i: int, j: int, k: int) -> Any:
    packed = panels(memory, 0, array.shape[0], array.shape[1], width, 0)
    pack(packed, whole(array))
    part = packed[i:j, k:]
    return elements(whole(out), panel(part, width))


@kernel(parallel=False)
def _diagonals(array: Array, diagonal: int, i: int, k: int) -> Any:
    m = causal(whole(array), diagonal)
    return m[i:].diagonal, m[:, k:].diagonal, m[i:, k:].diagonal


def assert_elements(cut: Any, expected: Array, *arguments: Any) -> None:
    out = np.full(2000, np.nan, expected.dtype)
    assert cut(out, *arguments) == expected.shape
    np.testing.assert_array_equal(out[: expected.size], expected.ravel())
    assert np.isnan(out[expected.size :]).all()


def numbers(rows: int, columns: int, dtype: str) -> Array:
    return np.arange(1.0 * rows * columns, dtype=dtype).reshape(rows, columns)


@pytest.mark.parametrize("cut", [(0, 5, 0, 7), (1, 3, 2, 6), (4, 5, 6, 7), (2, 9, 3, 99), (2, 2, 0, 7)], ids=str)
def test_slices_are_those_of_numpy(dtype: str, cut: tuple[int, int, int, int]) -> None:
    array, (i, j, k, m) = numbers(5, 7, dtype), cut
    assert_elements(_cut, array[i:j, k:m], array, *cut)
    assert_elements(_cut_transpose, array.T[k:m, i:j], array, *cut)
    if i < j:
        assert_elements(_cut_again, array[i:j][:, k:m][1:, 1:], array, *cut)


def test_a_row_of_a_matrix(dtype: str) -> None:
    array, out = numbers(5, 7, dtype), np.empty(5, dtype)
    assert _cut_row(out, array, 3, 2) == 5
    np.testing.assert_array_equal(out, array[3, 2:])


@pytest.mark.parametrize("k", [0, 1, 2])
def test_slices_of_packed_panels(dtype: str, k: int) -> None:
    width = TARGET.lanes(np.dtype(dtype).itemsize)
    array = numbers(9, 3 * width + 1, dtype)
    memory = np.empty(9 * 4 * width, dtype)
    expected = array[2:7, (k + 1) * width :][:, :width]
    assert_elements(_cut_panels, expected, memory, array, width, 2, 7, k * width)


def test_a_causal_matrix_keeps_its_diagonal() -> None:
    # row i reaches up to column i + diagonal
    assert _diagonals(np.zeros((5, 7)), 1, 2, 3) == (1 + 2, 1 - 3, 1 + 2 - 3)
