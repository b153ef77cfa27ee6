"""Linear layers: the three products Y = X W, dX = dY W^T, dW = X^T dY, on register tiles.

The right operand is packed into panels first, so that the loop over k reads it as one stream; the left one is read
where it lies. How the work is split over threads changes no bit: each element of a result is a sum over k in one fixed
order, wherever its tile stands.
"""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Activation, Array, implements
from ._jit import device, kernel
from ._scratch import scratch
from ._simd.blocks import block_rows, pack_columns, product_block
from ._simd.packing import column_sums
from ._simd.product_plan import ALONE, STREAMED, TOGETHER, plan_product, plan_weight_gradient
from ._simd.spans import add_span, gelu_gradient_span, gelu_span, relu_gradient_span, relu_span, zero_span
from ._simd.target import TARGET
from ._simd.tiles import product_address
from ._threads import thread_count

LINEAR, RELU, GELU = 0, 1, 2
ACTIVATIONS = {None: LINEAR, "relu": RELU, "gelu": GELU}


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C), (C,OC), (OC,) -> (N,OC)
    N, (C, OC) = len(inp), weight.shape
    plan = plan_product(N, C, OC, inp.dtype, thread_count())
    in_one_pass = activation is None and preactivation is None
    activated = out
    if not in_one_pass and residual is not None:  # out may be residual: keep it until it is added
        activated = scratch("linear", N * OC, out.dtype)[: N * OC].reshape(N, OC)
    _forward(
        out, activated if preactivation is None else preactivation, activated, inp, *strided(weight),
        inp.reshape(-1) if bias is None else bias, bias is not None, out if residual is None else residual,
        residual is not None, in_one_pass, ACTIVATIONS[activation],
        product_address(inp.dtype), scratch("panels", plan.size, inp.dtype), *plan[1:],
    )  # fmt: skip


@implements(contract.linear_backward)
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,OC), (N,C), (C,OC) -> (N,C), (C,OC), (OC,)
    N, (C, OC) = len(inp), weight.shape
    threads, dtype = thread_count(), inp.dtype
    if dweight.flags.c_contiguous:  # dweight (C,OC) += inp^T dout
        left, right = inp, dout
    else:  # dweight^T (OC,C) += dout^T inp
        dweight, left, right = dweight.T, dout, inp
        if dbias is not None:
            _bias_gradient(dbias, dout, 4 * TARGET.lanes(dout.itemsize))
            dbias = None
    dweight_plan, plan = plan_weight_gradient(N, *dweight.shape, dtype, threads), plan_product(N, OC, C, dtype, threads)
    linear = dinp
    if activation is not None and dresidual is not None:  # dinp may be dresidual: keep it until it is added
        linear = scratch("linear", N * C, dtype)[: N * C].reshape(N, C)
    columns, partial = scratch("columns", dweight_plan.size, dtype), scratch("slices", dweight_plan.partial, dtype)
    weights, w_row, w_column = strided(weight)
    _backward(
        dweight.reshape(-1), left, right, columns if dbias is None else dbias, dbias is not None, columns, partial,
        *dweight_plan[2:],
        dinp, linear, dout, weights, w_column, w_row, dout if preactivation is None else preactivation,
        ACTIVATIONS[activation], dout if dresidual is None else dresidual, dresidual is not None,
        product_address(dtype), scratch("panels", plan.size, dtype), *plan[1:],
    )  # fmt: skip


def strided(weight: Array) -> tuple[Array, int, int]:
    """A weight's memory in C order, with its strides in elements along rows and columns."""
    if weight.flags.c_contiguous:
        return weight, weight.shape[1], 1
    return weight.T, 1, weight.shape[0]


# ------------------------------------------------------------------------------------------------------------- kernels
# A parallel loop only calls a function: Numba's transformation of such loops takes long over a large body.


@kernel()
def _forward(
    out, linear, activated, inp, weight, w_row, w_column, bias, use_bias, residual, use_residual,
    in_one_pass, activation, multiply, panels, packing, part, depth, width, NR, MR, row_blocks, column_blocks, shares,
):  # fmt: skip
    if packing == TOGETHER:
        for p in numba.prange((out.shape[1] + NR - 1) // NR):
            _pack(p, p + 1, panels, weight, w_row, w_column, inp.shape[1], out.shape[1], NR)
    for share in numba.prange(shares):
        _forward_share(
            share, numba.get_thread_id() * part, out, linear, activated, inp, weight, w_row, w_column,
            bias, use_bias, residual, use_residual, in_one_pass, activation, multiply,
            panels, packing, depth, width, NR, MR, row_blocks, column_blocks, shares,
        )  # fmt: skip


@device
def _pack(first, last, panels, weight, w_row, w_column, K, columns, NR):
    """Some panels of the right operand, where they belong if it is packed as a whole."""
    for p in range(first, last):
        j = p * NR
        pack_columns(panels, j * K, weight, w_row, w_column, 0, K, j, min(columns, j + NR), NR)


@device
def _forward_share(
    share, own, out, linear, activated, inp, weight, w_row, w_column, bias, use_bias, residual, use_residual,
    in_one_pass, activation, multiply, panels, packing, depth, width, NR, MR, row_blocks, column_blocks, shares,
):  # fmt: skip
    """Some blocks of the result; `own` is where the panels of this thread are."""
    (N, C), OC = inp.shape, out.shape[1]
    if packing == ALONE:
        pack_columns(panels, own, weight, w_row, w_column, 0, C, 0, OC, NR)
    blocks = row_blocks * column_blocks
    for block in range(share * blocks // shares, (share + 1) * blocks // shares):
        first, last = block_rows(block // column_blocks, row_blocks, N, MR)
        start, end = block_rows(block % column_blocks, column_blocks, OC, NR)
        for j in range(start, end, width):
            stop = min(end, j + width)
            product_block(
                first, last, j, stop, linear, 0, OC, inp, C, 1, weight, w_row, w_column, 0, C, depth, multiply,
                panels, own if packing == STREAMED else own + j * C, packing == STREAMED, NR, bias, use_bias, False,
                residual, use_residual and in_one_pass, bias, 0, False,
            )  # fmt: skip
            if in_one_pass:
                continue
            for n in range(first, last):  # the rest while the block is in the cache, along the rows, as memory likes it
                at = n * OC + j
                if activation == GELU:
                    gelu_span(activated, at, linear, at, stop - j)
                elif activation == RELU:
                    relu_span(activated, at, linear, at, stop - j)
                else:
                    for i in range(j, stop):
                        activated[n, i] = linear[n, i]
                if use_residual:
                    add_span(out, at, activated, at, residual, at, stop - j)


@kernel()
def _backward(
    dweight, left, right, dbias, use_dbias,
    columns, partial, dw_part, dw_depth, dw_NR, dw_MR, slices, dw_row_blocks, dw_column_blocks, dw_shares, folds,
    dinp, linear, dout, weight, w_column, w_row, preactivation, activation, dresidual, use_dresidual,
    multiply, panels, packing, part, depth, width, NR, MR, row_blocks, column_blocks, shares,
):  # fmt: skip
    # dweight; in the same loop, for neither waits for the other, dinp, or, if all threads pack for it together, that
    both = dw_shares if packing == TOGETHER else max(dw_shares, shares)
    for share in numba.prange(both):
        _weight_gradient_share(
            share, both, numba.get_thread_id() * dw_part, dweight, left, right, dbias, use_dbias, multiply,
            columns, partial, dw_depth, dw_NR, dw_MR, slices, dw_row_blocks, dw_column_blocks,
        )  # fmt: skip
        if packing == TOGETHER:
            count = (dinp.shape[1] + NR - 1) // NR
            _pack(
                share * count // both, (share + 1) * count // both, panels, weight, w_column, w_row,
                dout.shape[1], dinp.shape[1], NR,
            )  # fmt: skip
        else:
            _input_gradient_share(
                share, both, numba.get_thread_id() * part, dinp, linear, dout, weight, w_column, w_row, preactivation,
                activation, dresidual, use_dresidual, multiply, columns, panels, packing, depth, width, NR, MR,
                row_blocks, column_blocks,
            )  # fmt: skip
    if packing == TOGETHER:
        for share in numba.prange(shares):
            _input_gradient_share(
                share, shares, 0, dinp, linear, dout, weight, w_column, w_row, preactivation,
                activation, dresidual, use_dresidual, multiply, columns, panels, packing, depth, width, NR, MR,
                row_blocks, column_blocks,
            )  # fmt: skip
    if slices > 1:
        M = right.shape[1]
        if folds == 0:
            _fold(0, dweight.size, dweight, dbias, use_dbias, M, partial, slices)
        else:
            for share in numba.prange(folds):
                _fold(
                    share * dweight.size // folds, (share + 1) * dweight.size // folds, dweight,
                    dbias, use_dbias and share == 0, M, partial, slices,
                )  # fmt: skip


@device
def _weight_gradient_share(
    share, shares, own, dweight, left, right, dbias, use_dbias, multiply, columns, partial, depth, NR, MR,
    slices, row_blocks, column_blocks,
):  # fmt: skip
    """Some blocks of  dweight += left^T right;  dbias += sum of right's rows.  The first slice of the rows goes there
    itself, others to `partial`: of each all of dweight, then all of dbias."""
    (N, R), M, blocks = left.shape, right.shape[1], row_blocks * column_blocks
    for block in range(share * slices * blocks // shares, (share + 1) * slices * blocks // shares):
        number, block_of_slice = block // blocks, block % blocks
        first, last = block_rows(block_of_slice // column_blocks, row_blocks, R, MR)
        start, end = block_rows(block_of_slice % column_blocks, column_blocks, M, NR)
        sums, sums_bias, at, bias_at = dweight, dbias, 0, 0
        if number > 0:
            sums, sums_bias, at = partial, partial, (number - 1) * (R + 1) * M
            bias_at = at + R * M
            if use_dbias and first == 0:
                zero_span(partial, bias_at + start, end - start)
        product_block(
            first, last, start, end, sums, at, M, left, 1, R, right, M, 1,
            number * N // slices, (number + 1) * N // slices, depth, multiply,
            columns, own, True, NR, columns, False, number == 0, sums, False,
            sums_bias, bias_at, use_dbias and first == 0,
        )  # fmt: skip


@device
def _fold(first, last, dweight, dbias, use_dbias, M, partial, slices):
    """Elements first to last of dweight, and of dbias, from the sums of all slices, one after the other."""
    for number in range(slices - 1):
        at = number * (dweight.size + M)
        add_span(dweight, first, dweight, first, partial, at + first, last - first)
        if use_dbias:
            add_span(dbias, 0, dbias, 0, partial, at + dweight.size, M)


@device
def _input_gradient_share(
    share, shares, own, dinp, linear, dout, weight, w_column, w_row, preactivation, activation,
    dresidual, use_dresidual, multiply, columns, panels, packing, depth, width, NR, MR, row_blocks, column_blocks,
):  # fmt: skip
    """Some blocks of  dinp = dout weight^T;  `own` is where the panels of this thread are."""
    (N, OC), C, blocks = dout.shape, dinp.shape[1], row_blocks * column_blocks
    if packing == ALONE:
        pack_columns(panels, own, weight, w_column, w_row, 0, OC, 0, C, NR)
    for block in range(share * blocks // shares, (share + 1) * blocks // shares):
        first, last = block_rows(block // column_blocks, row_blocks, N, MR)
        start, end = block_rows(block % column_blocks, column_blocks, C, NR)
        for j in range(start, end, width):
            stop = min(end, j + width)
            product_block(
                first, last, j, stop, linear, 0, C, dout, OC, 1, weight, w_column, w_row, 0, OC, depth, multiply,
                panels, own if packing == STREAMED else own + j * OC, packing == STREAMED, NR, columns, False, False,
                dresidual, use_dresidual and activation == LINEAR, columns, 0, False,
            )  # fmt: skip
            if activation == LINEAR:
                continue
            for n in range(first, last):  # the rest while the block is in the cache
                at = n * C + j
                if activation == GELU:
                    gelu_gradient_span(linear, at, linear, at, preactivation, at, stop - j)
                else:
                    relu_gradient_span(linear, at, linear, at, preactivation, at, stop - j)
                if use_dresidual:
                    add_span(dinp, at, linear, at, dresidual, at, stop - j)


@kernel()
def _bias_gradient(dbias, dout, width):
    N, OC = dout.shape
    for block in numba.prange((OC + width - 1) // width):
        column_sums(dbias, block * width, dout, block * width, OC, N, min(width, OC - block * width))
