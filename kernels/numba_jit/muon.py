"""Muon: momentum, orthogonalized by Newton-Schulz iterations; see `numpy_ref.muon` for why.

The polynomials are those of the reference, but applied to the Gram matrix. With X wide and R = X X^T, one step makes
Q X of X, where Q = a I + b R + c R^2 is a polynomial in R. The next R is Q X X^T Q = R Q Q, since all of these are
polynomials in the first R, so they commute and are symmetric. So the steps need not touch X, only the product P of all
Q does, once. What comes before is as small as the shorter side of X, and only half of it is computed.

The Gram matrix has the squares of the singular values, and their rounding errors grow with the squares of the slopes:
after five steps a hundredth of a float32 would be left. So P X replaces X after RESTART steps, and R begins anew.

Each thread takes whole matrices, so the result has the same bits for any number of threads.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numba
import numpy as np

from .. import contract
from ..contract import Array, MatrixAt, check_matrices, implements
from ..newton_schulz import COEFFICIENTS, MUON_EPS, RESTART
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.blocks import multiply_add
from ._simd.elementwise import copy, scale, zero
from ._simd.muon_plan import plan_muon, room_for_rows
from ._simd.muon_update import Factors, momentum_update
from ._simd.packing import pack
from ._simd.reductions import sum_of_squares
from ._simd.symmetric import multiply_symmetric, multiply_symmetric_streamed
from ._simd.tiles import lanes_of, product_address
from ._simd.views import matrix, nothing_like, panels


class Buffers(NamedTuple):
    """The arrays in which the matrices lie, and the polynomials."""

    parameters: Any
    gradients: Any
    momentum: Any
    coefficients: Any  # (steps, 3)


@implements(contract.muon)
def muon(
    parameters: Array, gradients: Array, momentum: Array,
    *, matrices: tuple[MatrixAt, ...], learning_rate: float, beta: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), all updated in place
    dtype = parameters.dtype
    check_matrices(matrices, parameters.size)
    plan = plan_muon(matrices, dtype, thread_count())
    factors = Factors(gradient_scale, beta, 1 - beta, learning_rate * weight_decay, learning_rate)
    _muon(
        (parameters, gradients, momentum, coefficients(dtype)), tuple(factors), plan.places, plan.shares,
        scratch("muon", plan.size, dtype), plan.part, product_address(dtype),
    )  # fmt: skip


@functools.cache
def coefficients(dtype: np.dtype[Any]) -> Array:
    return np.array(COEFFICIENTS, dtype)


@kernel()
def _muon(buffers, factors, places, shares, memory, part, multiply):
    buffers, factors = Buffers(*buffers), Factors(*factors)
    for share in numba.prange(shares.size - 1):
        for number in range(shares[share], shares[share + 1]):
            _update_matrix(buffers, factors, places[number], memory, share * part, multiply)


class Room(NamedTuple):
    """Working memory for matrices n x n, and for a packed one."""

    R: Any
    S: Any
    Q: Any
    P: Any
    packed: Any


@device
def _update_matrix(buffers, factors, place, memory, at, multiply):
    """Update one of the matrices. `place` is a row of `MuonPlan.places`, `at` where the thread's memory begins."""
    start, rows, columns, stride = place[0], place[1], place[2], place[3]
    W = matrix(buffers.parameters, start, rows, columns, stride)
    X = matrix(buffers.gradients, start, rows, columns, stride)
    M = matrix(buffers.momentum, start, rows, columns, stride)
    _normalized_update(X, W, M, factors)
    n, width, packed = min(rows, columns), place[4], place[5]
    row = room_for_rows(n, lanes_of(X))
    room = Room(
        matrix(memory, at, n, n, row), matrix(memory, at + n * row, n, n, row),
        matrix(memory, at + 2 * n * row, n, n, row), matrix(memory, at + 3 * n * row, n, n, row),
        panels(memory, at + 4 * n * row, packed, packed, width, multiply),
    )  # fmt: skip
    _multiply(X, _polynomial(X, room, buffers.coefficients[:RESTART]), room, False, X)
    P = _polynomial(X, room, buffers.coefficients[RESTART:])
    rate = X.dtype.type(-factors.rate * math.sqrt(max(1.0, columns / rows)))
    for i in range(n):
        scale(P[i], rate)
    _multiply(X, P, room, True, W)
    for i in range(rows):
        zero(X[i])


@device
def _normalized_update(X, W, M, factors):
    """m = beta m + (1 - beta) g;  u = beta m + (1 - beta) g;  X = u / max(|u|, MUON_EPS);  w = w - decay w

    X holds g = gradients, which are scaled first.
    """
    total = 0.0
    for i in range(X.rows):
        momentum_update(W[i], X[i], M[i], factors)
        total += sum_of_squares(X[i])
    norm = math.sqrt(total)
    if norm < MUON_EPS:  # not so if it is NaN
        norm = MUON_EPS
    root = X.dtype.type(1.0 / math.sqrt(norm))  # 1 / norm itself may be too small for a float32
    for i in range(X.rows):
        scale(X[i], root)
        scale(X[i], root)


@device
def _polynomial(X, room, coefficients):
    """Return the matrix P that makes some steps of X, as P X for a wide X and as X P for a tall one. It lies in
    `room.P` or `room.Q`."""
    R, S, Q, P, packed = room.R, room.S, room.Q, room.P, room.packed[: room.R.rows, : room.R.columns]
    if X.rows <= X.columns:
        multiply_symmetric_streamed(R, X, X.T, room.packed)
    else:
        multiply_symmetric_streamed(R, X.T, X, room.packed)
    steps = coefficients.shape[0]
    for step in range(steps):
        a, b, c = coefficients[step, 0], coefficients[step, 1], coefficients[step, 2]
        # S = b I + c R;  Q = a I + R S
        for i in range(R.rows):
            copy(S[i], R[i])
            scale(S[i], c)
            S[i][i] = S[i][i] + b
        pack(packed, S)
        multiply_symmetric(Q, R, packed)
        for i in range(Q.rows):
            Q[i][i] = Q[i][i] + a
        pack(packed, Q)
        if step < steps - 1:  # R = R Q Q
            multiply_symmetric(S, R, packed)
            multiply_symmetric(R, S, packed)
        if step > 0:  # P = P Q, which begins as Q
            multiply_symmetric(Q, P, packed)
        P, Q = Q, P
    return P


@device
def _multiply(X, P, room, begun, W):
    """W = P X for a wide X, W = X P for a tall one; or W += that if W has `begun`. W may be X if it has not."""
    nothing, packed, block = nothing_like(W), room.packed, room.S
    if X.rows <= X.columns:
        for j in range(0, X.columns, packed.columns):
            part, piece = W[:, j : j + packed.columns], X[:, j : j + packed.columns]
            packed_X = packed[: piece.rows, : piece.columns]
            pack(packed_X, piece)
            multiply_add(part, P, packed_X, part if begun else nothing, nothing, part[0])
        return
    packed_P = packed[: P.rows, : P.columns]
    pack(packed_P, P)
    for i in range(0, X.rows, block.rows):
        part, piece = W[i : i + block.rows], X[i : i + block.rows]
        rows = block[: piece.rows]
        for r in range(piece.rows):  # a product may not overwrite its own left operand
            copy(rows[r], piece[r])
        multiply_add(part, rows, packed_P, part if begun else nothing, nothing, part[0])
