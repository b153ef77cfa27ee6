"""Linear layers: the three products Y = X W, dX = dY W^T, dW = X^T dY, on register tiles.

The weights are packed into panels first, so that the loop over k reads them as one stream; the rows of X and dY are
read where they lie. How the work is split over threads changes no bit: each element of a result is one sum over k in
one fixed order, wherever its tile stands.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .. import contract
from ..contract import Activation, Array, implements
from ._jit import device, kernel
from ._scratch import scratch
from ._simd.norm_spans import dot_span
from ._simd.packing import column_sums, copy_span, pack_panel
from ._simd.rows import ROW_VECTORS, row_product
from ._simd.spans import gelu_gradient_span, gelu_span
from ._simd.target import TARGET, panel_vectors
from ._simd.tiles import product, product_address

ROWS = 96  # of a block, at most: their part of the left operand stays in the L2 cache while all panels pass by
BLOCK = 131072  # elements of the result in a block, about: they too should still be in the cache for the activation
DEPTHS = ((256, 512), (768, 256))  # k in a block of dW for results up to so many columns wide: what is packed of dY
DEEPEST = 128  # stays in the L2 cache. It splits a sum, so it may depend on the data only.
LINEAR, RELU, GELU = 0, 1, 2
ACTIVATIONS = {None: LINEAR, "relu": RELU, "gelu": GELU}


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C), (C,OC), (OC) -> (N,OC)
    N, (C, OC) = len(inp), weight.shape
    if N == 1:
        _forward_row(
            out.reshape(-1), (out if preactivation is None else preactivation).reshape(-1), inp.reshape(-1),
            *flat(weight), C, OC, inp.reshape(-1) if bias is None else bias, bias is not None,
            out.reshape(-1) if residual is None else residual.reshape(-1), residual is not None,
            preactivation is not None, ACTIVATIONS[activation],
            scratch("row", OC, inp.dtype), ROW_VECTORS * TARGET.lanes(inp.itemsize),
        )  # fmt: skip
        return
    NR, MR = tile_shape(OC, inp.dtype)
    in_one_pass = activation is None and preactivation is None
    if in_one_pass:
        linear = out
    elif preactivation is not None:
        linear = preactivation
    else:
        linear = out if residual is None else scratch("linear", N * OC, out.dtype)[: N * OC].reshape(N, OC)
    _forward(
        out.reshape(-1), linear.reshape(-1), inp.reshape(-1), *flat(weight), N, C, OC,
        inp.reshape(-1) if bias is None else bias, bias is not None,
        out.reshape(-1) if residual is None else residual.reshape(-1), residual is not None,
        in_one_pass, ACTIVATIONS[activation], product_address(inp.dtype),
        scratch("panels", panels_size(C, OC, NR), inp.dtype), NR, MR, *split(N, MR, OC, NR),
    )  # fmt: skip


@implements(contract.linear_backward)
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,OC), (N,C), (C,OC) -> (N,C), (C,OC), (OC)
    N, (C, OC) = len(inp), weight.shape
    if dweight.flags.c_contiguous:  # dweight (C,OC) += inp^T dout
        _weight_gradient_of(dweight, inp, dout)
    else:  # dweight^T (OC,C) += dout^T inp
        _weight_gradient_of(dweight.T, dout, inp)
    if dbias is not None:
        _bias_gradient(dbias, dout, 4 * TARGET.lanes(dout.itemsize))

    NR, MR = tile_shape(C, inp.dtype)
    linear = dinp
    if activation is not None and dresidual is not None:  # dinp may be dresidual: keep it until it is added
        linear = scratch("linear", N * C, dinp.dtype)[: N * C].reshape(N, C)
    weights, w_row, w_column = flat(weight)
    _input_gradient(
        dinp.reshape(-1), linear.reshape(-1), dout.reshape(-1), weights, w_column, w_row, N, OC, C,
        dout.reshape(-1) if preactivation is None else preactivation.reshape(-1), ACTIVATIONS[activation],
        dinp.reshape(-1) if dresidual is None else dresidual.reshape(-1), dresidual is not None,
        product_address(inp.dtype), scratch("panels", panels_size(OC, C, NR), inp.dtype), NR, MR, *split(N, MR, C, NR),
    )  # fmt: skip


def _weight_gradient_of(dweight: Array, left: Array, right: Array) -> None:
    """dweight (R,M) += left (N,R)^T right (N,M)"""
    N, (R, M) = len(left), dweight.shape
    NR, MR = tile_shape(M, dweight.dtype)
    row_blocks, column_blocks = split_among_threads(R, MR, M, NR)
    depth = min(N, next((depth for columns, depth in DEPTHS if columns >= M), DEEPEST))
    panels = -(-M // NR)
    size = depth * -(-panels // column_blocks) * NR
    _weight_gradient(
        dweight.reshape(-1), left.reshape(-1), right.reshape(-1), N, R, M, depth, product_address(dweight.dtype),
        scratch("columns", numba.get_num_threads() * size, dweight.dtype), size, NR, MR, row_blocks, column_blocks,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- how work is split


def tile_shape(columns: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """NR columns of a panel and MR rows of a tile for a right operand `columns` wide."""
    vectors = panel_vectors(columns, dtype.itemsize)
    return vectors * TARGET.lanes(dtype.itemsize), TARGET.tile_rows[vectors]


def panels_size(K: int, columns: int, NR: int) -> int:
    """Elements of a packed right operand (K, columns)."""
    return -(-columns // NR) * NR * K


def flat(weight: Array) -> tuple[Array, int, int]:
    """A weight's memory as one dimension, with its strides in elements along rows and columns."""
    if weight.flags.c_contiguous:
        return weight.reshape(-1), weight.shape[1], 1
    return weight.T.reshape(-1), 1, weight.shape[0]


def split(rows: int, MR: int, columns: int, NR: int) -> tuple[int, int]:
    """Into how many blocks of rows and of columns a result is cut: enough rows to fill the threads evenly, few enough
    to stay in the cache; columns only where there are not enough rows."""
    threads, tiles, panels = numba.get_num_threads(), -(-rows // MR), -(-columns // NR)
    most = max(MR, min(ROWS, BLOCK // columns))
    row_blocks = min(tiles, -(-max(1, rows // most) // threads) * threads)
    column_blocks = min(panels, -(-threads // row_blocks))
    return row_blocks, column_blocks


def split_among_threads(rows: int, MR: int, columns: int, NR: int) -> tuple[int, int]:
    """One block to a thread: by columns as far as that is even, for then no two threads pack the same; else by rows."""
    threads, tiles, panels = numba.get_num_threads(), -(-rows // MR), -(-columns // NR)
    even = [c for c in range(1, threads + 1) if threads % c == 0 and (panels % c == 0 or panels >= 8 * c)]
    return min(tiles, threads // even[-1]), even[-1]


# ------------------------------------------------------------------------------------------------------------- kernels
# A parallel loop only calls a function: Numba's transformation of such loops takes long over a large body.


@kernel()
def _forward(
    out, linear, inp, weight, w_row, w_column, N, C, OC, bias, use_bias, residual, use_residual,
    in_one_pass, activation, multiply, panels, NR, MR, row_blocks, column_blocks,
):  # fmt: skip
    for p in numba.prange((OC + NR - 1) // NR):
        pack_panel(panels, p * C * NR, NR, weight, p * NR * w_column, w_row, w_column, C, min(NR, OC - p * NR))
    for block in numba.prange(row_blocks * column_blocks):
        _forward_block(
            block, out, linear, inp, N, C, OC, bias, use_bias, residual, use_residual,
            in_one_pass, activation, multiply, panels, NR, MR, row_blocks, column_blocks,
        )  # fmt: skip


@device
def _forward_block(
    block, out, linear, inp, N, C, OC, bias, use_bias, residual, use_residual,
    in_one_pass, activation, multiply, panels, NR, MR, row_blocks, column_blocks,
):  # fmt: skip
    first, last = block_rows(block // column_blocks, row_blocks, N, MR)
    first_panel, last_panel = block_rows(block % column_blocks, column_blocks, (OC + NR - 1) // NR, 1)
    for p in range(first_panel, last_panel):
        j, columns = p * NR, min(NR, OC - p * NR)
        at = first * OC + j
        product(
            multiply, inp, first * C, C, 1, panels, p * C * NR, NR, C, linear, at, OC, last - first, columns,
            bias, j, 0, use_bias, residual, at, OC, use_residual and in_one_pass,
        )  # fmt: skip
    if not in_one_pass:  # the rest while the block is in the cache, along the rows, as memory likes it best
        j, columns = first_panel * NR, min(OC, last_panel * NR) - first_panel * NR
        for at in range(first * OC + j, last * OC + j, OC):
            if activation == GELU:
                gelu_span(out, at, linear, at, columns)
            elif activation == RELU:
                for i in range(at, at + columns):
                    out[i] = linear[i] if not linear[i] <= 0 else 0  # so written, a NaN stays
            else:
                for i in range(at, at + columns):
                    out[i] = linear[i]
            if use_residual:
                for i in range(at, at + columns):
                    out[i] += residual[i]


@kernel(parallel=False)
def _forward_row(
    out, preactivation, inp, weight, w_row, w_column, C, OC, bias, use_bias, residual, use_residual,
    use_preactivation, activation, linear, width,
):  # fmt: skip
    """A single row, as when text is generated. One core reads weights about as fast as a launch would take longer."""
    if w_column == 1:
        for j in range(0, OC, width):
            row_product(linear, j, inp, 0, weight, j, w_row, C, min(width, OC - j))
    else:
        for j in range(OC):
            linear[j] = dot_span(inp, 0, weight, j * w_column, C)
    if use_bias:
        for j in range(OC):
            linear[j] += bias[j]
    if use_preactivation:
        for j in range(OC):
            preactivation[j] = linear[j]
    if activation == GELU:
        gelu_span(linear, 0, linear, 0, OC)
    elif activation == RELU:
        for j in range(OC):
            linear[j] = linear[j] if not linear[j] <= 0 else 0
    for j in range(OC):
        out[j] = linear[j] + residual[j] if use_residual else linear[j]


@kernel()
def _input_gradient(
    dinp, linear, dout, weight, w_row, w_column, N, OC, C, preactivation, activation, dresidual, use_dresidual,
    multiply, panels, NR, MR, row_blocks, column_blocks,
):  # fmt: skip
    for p in numba.prange((C + NR - 1) // NR):
        pack_panel(panels, p * OC * NR, NR, weight, p * NR * w_column, w_row, w_column, OC, min(NR, C - p * NR))
    for block in numba.prange(row_blocks * column_blocks):
        _input_gradient_block(
            block, dinp, linear, dout, N, OC, C, preactivation, activation, dresidual, use_dresidual,
            multiply, panels, NR, MR, row_blocks, column_blocks,
        )  # fmt: skip


@device
def _input_gradient_block(
    block, dinp, linear, dout, N, OC, C, preactivation, activation, dresidual, use_dresidual,
    multiply, panels, NR, MR, row_blocks, column_blocks,
):  # fmt: skip
    first, last = block_rows(block // column_blocks, row_blocks, N, MR)
    first_panel, last_panel = block_rows(block % column_blocks, column_blocks, (C + NR - 1) // NR, 1)
    for p in range(first_panel, last_panel):
        j, columns = p * NR, min(NR, C - p * NR)
        at = first * C + j
        product(
            multiply, dout, first * OC, OC, 1, panels, p * OC * NR, NR, OC, linear, at, C, last - first, columns,
            dresidual, at, C, use_dresidual and activation == LINEAR, dout, 0, 0, False,
        )  # fmt: skip
    if activation != LINEAR:  # the rest while the block is in the cache
        j, columns = first_panel * NR, min(C, last_panel * NR) - first_panel * NR
        for at in range(first * C + j, last * C + j, C):
            if activation == GELU:
                gelu_gradient_span(linear, at, linear, at, preactivation, at, columns)
            else:
                for i in range(at, at + columns):
                    linear[i] = linear[i] if preactivation[i] > 0 else 0
            if use_dresidual:
                for i in range(at, at + columns):
                    dinp[i] = linear[i] + dresidual[i]


@kernel()
def _weight_gradient(
    dweight, left, right, N, R, M, deepest, multiply, buffers, size, NR, MR, row_blocks, column_blocks
):
    for block in numba.prange(row_blocks * column_blocks):
        _weight_gradient_block(
            block, dweight, left, right, N, R, M, deepest, multiply, buffers, numba.get_thread_id() * size, NR, MR,
            row_blocks, column_blocks,
        )  # fmt: skip


@device
def _weight_gradient_block(
    block, dweight, left, right, N, R, M, deepest, multiply, buffers, buffer, NR, MR, row_blocks, column_blocks
):
    first, last = block_rows(block // column_blocks, row_blocks, R, MR)
    start, end = block_rows(block % column_blocks, column_blocks, M, NR)
    for k in range(0, N, deepest):
        depth = min(deepest, N - k)
        for i in range(depth):  # row by row, as memory likes it best
            for j in range(start, end, NR):
                packed = buffer + (j - start) * depth + i * NR
                copy_span(buffers, packed, right, (k + i) * M + j, min(NR, M - j))
        for j in range(start, end, NR):
            at = first * M + j
            product(
                multiply, left, k * R + first, 1, R, buffers, buffer + (j - start) * depth, NR, depth,
                dweight, at, M, last - first, min(NR, M - j), dweight, at, M, True, dweight, 0, 0, False,
            )  # fmt: skip


@device
def block_rows(block, blocks, rows, MR):
    """First and last row of a block, when all tiles of MR rows are dealt out evenly."""
    tiles = (rows + MR - 1) // MR
    return block * tiles // blocks * MR, min(rows, (block + 1) * tiles // blocks * MR)


@kernel()
def _bias_gradient(dbias, dout, width):
    N, OC = dout.shape
    for block in numba.prange((OC + width - 1) // width):
        column_sums(dbias, block * width, dout, block * width, OC, N, min(width, OC - block * width))
