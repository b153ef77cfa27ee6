"""Linear layers: the three products Y = X W, dX = dY W^T, dW = X^T dY, on register tiles.

The right operand is packed into panels first, so that the loop over k reads it as one stream; the left one is read
where it lies. How the work is split over threads changes no bit: each element of a result is a sum over k in one fixed
order, wherever its tile stands.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

from .. import contract
from ..contract import Activation, Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.target import TARGET
from ._runtime.threads import thread_count
from ._simd.blocks import block_rows, multiply_add, multiply_add_streamed
from ._simd.elementwise import add, copy, gelu, gelu_gradient, relu, relu_gradient, zero
from ._simd.packing import add_column_sums, pack
from ._simd.product_plan import ALONE, STREAMED, TOGETHER, plan_product, plan_weight_gradient
from ._simd.tiles import product_address
from ._simd.views import matrix, nothing_like, panels, repeated, row_of, whole

LINEAR, RELU, GELU = 0, 1, 2
ACTIVATIONS = {None: LINEAR, "relu": RELU, "gelu": GELU}


class Memory(NamedTuple):
    """What a product works in, and with."""

    multiply: int  # the address of the product's machine code
    panels: Any


class ForwardArrays(NamedTuple):
    """out = activated + residual,  activated = activation(linear),  linear = inp weight + bias"""

    out: Any
    activated: Any
    linear: Any
    inp: Any
    weight: Any
    bias: Any  # empty if there is none
    residual: Any


class WeightArrays(NamedTuple):
    """dweight += left^T right,  dbias += the sum of right's rows"""

    dweight: Any
    dbias: Any  # empty if there is none
    left: Any
    right: Any
    partial: Any  # of the slices but the first: of each dweight, then dbias


class InputArrays(NamedTuple):
    """dinp = linear times the activation's derivative + dresidual,  linear = dout weight^T"""

    dinp: Any
    linear: Any
    dout: Any
    weight: Any
    preactivation: Any
    dresidual: Any  # empty if there is none


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C), (C,OC), (OC,) -> (N,OC)
    (N, (C, OC)), dtype = (len(inp), weight.shape), inp.dtype
    plan = plan_product(N, C, OC, dtype, thread_count())
    activated = out
    if residual is not None and (activation is not None or preactivation is not None):
        activated = scratch("linear", N * OC, dtype)[: N * OC].reshape(N, OC)  # out may be residual: keep it
    linear = activated if preactivation is None else preactivation
    memory = Memory(product_address(dtype), scratch("panels", plan.size, dtype))
    arrays = ForwardArrays(
        out, activated, linear, inp, in_rows(weight),
        absent(dtype, 1) if bias is None else bias, absent(dtype, 2) if residual is None else residual,
    )  # fmt: skip
    in_one_pass = activation is None and preactivation is None
    _forward(arrays, is_transposed(weight), in_one_pass, ACTIVATIONS[activation], memory, plan)


@implements(contract.linear_backward)
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,OC), (N,C), (C,OC) -> (N,C), (C,OC), (OC,)
    (N, (C, OC)), threads, dtype = (len(inp), weight.shape), thread_count(), inp.dtype
    left, right = inp, dout  # dweight (C,OC) += inp^T dout
    if is_transposed(dweight):  # dweight^T (OC,C) += dout^T inp
        left, right = dout, inp
        if dbias is not None:
            _bias_gradient(dbias, dout, 4 * TARGET.lanes(dout.itemsize))
            dbias = None
    dweight = in_rows(dweight)
    weight_plan, plan = plan_weight_gradient(N, *dweight.shape, dtype, threads), plan_product(N, OC, C, dtype, threads)
    linear = dinp
    if activation is not None and dresidual is not None:  # dinp may be dresidual: keep it until it is added
        linear = scratch("linear", N * C, dtype)[: N * C].reshape(N, C)
    multiply = product_address(dtype)
    columns, partial = scratch("columns", weight_plan.size, dtype), scratch("slices", weight_plan.partial, dtype)
    _backward(
        WeightArrays(dweight, absent(dtype, 1) if dbias is None else dbias, left, right, partial),
        Memory(multiply, columns), weight_plan,
        InputArrays(
            dinp, linear, dout, in_rows(weight), dout if preactivation is None else preactivation,
            absent(dtype, 2) if dresidual is None else dresidual,
        ),
        not is_transposed(weight), ACTIVATIONS[activation], Memory(multiply, scratch("panels", plan.size, dtype)), plan,
    )  # fmt: skip


def is_transposed(weight: Array) -> bool:
    return not weight.flags.c_contiguous


def in_rows(weight: Array) -> Array:
    """A weight, or its transpose, whichever is in C order."""
    return weight.T if is_transposed(weight) else weight


@functools.cache
def absent(dtype: np.dtype[Any], dimensions: int) -> Array:
    """In the place of an array that is not given."""
    return np.empty((0,) * dimensions, dtype)


# ------------------------------------------------------------------------------------------------------------- kernels
# A parallel loop only calls a function: Numba's transformation of such loops takes long over a large body.


@device
def turned(weight, transposed):
    W = whole(weight)
    return W.T if transposed else W


@device
def room_for(memory, plan, columns):
    """Where a thread finds the right operand packed, or packs it."""
    at = numba.get_thread_id() * plan.part
    return panels(memory.panels, at, plan.depth, min(plan.width, columns), plan.NR, memory.multiply)


@kernel()
def _forward(arrays, transposed, in_one_pass, activation, memory, plan):
    if plan.packing == TOGETHER:
        count = (arrays.out.shape[1] + plan.NR - 1) // plan.NR
        for p in numba.prange(count):
            _pack_share(p, count, arrays.weight, transposed, memory, plan)
    for share in numba.prange(plan.shares):
        _forward_share(share, arrays, transposed, in_one_pass, activation, memory, plan)


@device
def _pack_share(share, shares, weight, transposed, memory, plan):
    """Some panels of the right operand, where they belong if it is packed as a whole."""
    W = turned(weight, transposed)
    start, end = block_rows(share, shares, W.columns, plan.NR)
    pack(room_for(memory, plan, W.columns)[:, start:end], W[:, start:end])


@device
def _forward_share(share, arrays, transposed, in_one_pass, activation, memory, plan):
    """Some blocks of the result."""
    X, W, linear = whole(arrays.inp), turned(arrays.weight, transposed), whole(arrays.linear)
    out, activated, residual = whole(arrays.out), whole(arrays.activated), whole(arrays.residual)
    bias = whole(arrays.bias)
    use_residual = residual.rows > 0
    room = room_for(memory, plan, W.columns)
    if plan.packing == ALONE:
        pack(room, W)
    blocks = plan.row_blocks * plan.column_blocks
    for block in range(share * blocks // plan.shares, (share + 1) * blocks // plan.shares):
        first, last = block_rows(block // plan.column_blocks, plan.row_blocks, X.rows, plan.MR)
        start, end = block_rows(block % plan.column_blocks, plan.column_blocks, W.columns, plan.NR)
        for j in range(start, end, plan.width):
            stop = min(end, j + plan.width)
            y = linear[first:last, j:stop]
            P, Q = nothing_like(y), nothing_like(y)
            if bias.size > 0:
                P = repeated(bias[j:stop], y.rows)
            if use_residual and in_one_pass:
                Q = residual[first:last, j:stop]
            _multiply_block(y, X[first:last], W[:, j:stop], j, P, Q, room, plan.packing)
            if in_one_pass:
                continue
            for n in range(first, last):  # the rest while the block is in the cache, along the rows, as memory likes it
                _activate(activated[n][j:stop], linear[n][j:stop], activation)
                if use_residual:
                    add(out[n][j:stop], activated[n][j:stop], residual[n][j:stop])


@device
def _multiply_block(y, X, W, j, P, Q, room, packing):
    """y = X W + P + Q, where W is from column j on of what is packed or is to be"""
    if packing == STREAMED:
        multiply_add_streamed(y, X, W, P, Q, room, P[0][:0])
    else:
        multiply_add(y, X, room[:, j : j + y.columns], P, Q)


@device
def _activate(out, inp, activation):
    if activation == GELU:
        gelu(out, inp)
    elif activation == RELU:
        relu(out, inp)
    else:
        copy(out, inp)


@kernel()
def _backward(weight_arrays, columns, weight_plan, arrays, transposed, activation, memory, plan):
    # dweight; in the same loop, for neither waits for the other, dinp, or, if all threads pack for it together, that
    shares = weight_plan.shares if plan.packing == TOGETHER else max(weight_plan.shares, plan.shares)
    for share in numba.prange(shares):
        _weight_gradient_share(share, shares, weight_arrays, columns, weight_plan)
        if plan.packing == TOGETHER:
            _pack_share(share, shares, arrays.weight, transposed, memory, plan)
        else:
            _input_gradient_share(share, shares, arrays, transposed, activation, memory, plan)
    if plan.packing == TOGETHER:
        for share in numba.prange(plan.shares):
            _input_gradient_share(share, plan.shares, arrays, transposed, activation, memory, plan)
    if weight_plan.slices > 1:
        if weight_plan.folds == 0:
            _fold(0, 1, weight_arrays, weight_plan.slices)
        else:
            for share in numba.prange(weight_plan.folds):
                _fold(share, weight_plan.folds, weight_arrays, weight_plan.slices)


@device
def _sums_of(number, arrays):
    """Where a slice of the rows sums up dweight and dbias: the first where they belong, others in `partial`."""
    R, M = arrays.dweight.shape
    if number == 0:
        return whole(arrays.dweight), whole(arrays.dbias)
    at = (number - 1) * (R + 1) * M
    return matrix(arrays.partial, at, R, M, M), row_of(arrays.partial, at + R * M, arrays.dbias.size)


@device
def _weight_gradient_share(share, shares, arrays, columns, plan):
    """Some blocks of  dweight += left^T right;  dbias += sum of right's rows."""
    left, right = whole(arrays.left), whole(arrays.right)
    N, R, M = left.rows, left.columns, right.columns
    room = panels(
        columns.panels, numba.get_thread_id() * plan.part, plan.depth, M, plan.NR, columns.multiply
    )
    blocks = plan.row_blocks * plan.column_blocks
    for block in range(share * plan.slices * blocks // shares, (share + 1) * plan.slices * blocks // shares):
        number, block_of_slice = block // blocks, block % blocks
        first, last = block_rows(block_of_slice // plan.column_blocks, plan.row_blocks, R, plan.MR)
        start, end = block_rows(block_of_slice % plan.column_blocks, plan.column_blocks, M, plan.NR)
        n, m = number * N // plan.slices, (number + 1) * N // plan.slices
        dweight, dbias = _sums_of(number, arrays)
        sums = dbias[start:end] if first == 0 else dbias[:0]
        if number > 0 and sums.size > 0:
            zero(sums)
        y = dweight[first:last, start:end]
        nothing = nothing_like(y)
        P = y if number == 0 else nothing
        multiply_add_streamed(y, left[n:m, first:last].T, right[n:m, start:end], P, nothing, room, sums)


@device
def _fold(share, shares, arrays, slices):
    """Some elements of dweight, and all of dbias, from the sums of all slices, one after the other."""
    size = arrays.dweight.size
    first, last = share * size // shares, (share + 1) * size // shares
    dweight, dbias = row_of(arrays.dweight, first, last - first), whole(arrays.dbias)
    for number in range(1, slices):
        more, more_bias = _sums_of(number, arrays)
        add(dweight, dweight, row_of(more, first, dweight.size))
        if share == 0:
            add(dbias, dbias, more_bias)


@device
def _input_gradient_share(share, shares, arrays, transposed, activation, memory, plan):
    """Some blocks of  dinp = dout weight^T."""
    dout, W_T, linear = whole(arrays.dout), turned(arrays.weight, transposed), whole(arrays.linear)
    dinp, preactivation, dresidual = whole(arrays.dinp), whole(arrays.preactivation), whole(arrays.dresidual)
    use_dresidual = dresidual.rows > 0
    room = room_for(memory, plan, W_T.columns)
    if plan.packing == ALONE:
        pack(room, W_T)
    blocks = plan.row_blocks * plan.column_blocks
    for block in range(share * blocks // shares, (share + 1) * blocks // shares):
        first, last = block_rows(block // plan.column_blocks, plan.row_blocks, dout.rows, plan.MR)
        start, end = block_rows(block % plan.column_blocks, plan.column_blocks, W_T.columns, plan.NR)
        for j in range(start, end, plan.width):
            stop = min(end, j + plan.width)
            dx = linear[first:last, j:stop]
            P, Q = nothing_like(dx), nothing_like(dx)
            if use_dresidual and activation == LINEAR:
                Q = dresidual[first:last, j:stop]
            _multiply_block(dx, dout[first:last], W_T[:, j:stop], j, P, Q, room, plan.packing)
            if activation == LINEAR:
                continue
            for n in range(first, last):  # the rest while the block is in the cache
                dx_row, x_row = linear[n][j:stop], preactivation[n][j:stop]
                if activation == GELU:
                    gelu_gradient(dx_row, dx_row, x_row)
                else:
                    relu_gradient(dx_row, dx_row, x_row)
                if use_dresidual:
                    add(dinp[n][j:stop], dx_row, dresidual[n][j:stop])


@kernel()
def _bias_gradient(dbias, dout, width):
    for block in numba.prange((dout.shape[1] + width - 1) // width):
        _bias_gradient_block(block * width, dbias, dout, width)


@device
def _bias_gradient_block(j, dbias, dout, width):
    columns = whole(dout)[:, j : j + width]
    add_column_sums(row_of(dbias, j, columns.columns), columns)
