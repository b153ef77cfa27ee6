"""The gradients of a linear layer: dinp = dout weight^T, dweight += inp^T dout, dbias += sum_n dout[n].

See `linear` for the forward pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from .. import contract
from ..contract import Activation, Array, Precision, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.target import TARGET
from ._runtime.threads import thread_count
from ._simd.blocks import block_rows, multiply_add_streamed
from ._simd.elementwise import add, gelu_gradient, relu_gradient, zero
from ._simd.normal import gelu_erf_gradient
from ._simd.packing import add_column_sums
from ._simd.product_plan import TOGETHER, ProductPlan, WeightGradientPlan, plan_product, plan_weight_gradient
from ._simd.shares import Product, ProductMemory, left_room, make_product_share, panels_for
from ._simd.tiles import product_address
from ._simd.views import matrix, nothing_like, row_of, whole
from ._simd.words import operand_dtype
from .linear import ACTIVATIONS, GELU, GELU_ERF, NONE, absent, in_rows, is_transposed, oriented, pack_weight_share


class WeightGradient(NamedTuple):
    """dweight += left^T right;  dbias += sum_n right[n]"""

    dweight: Any
    dbias: Any  # empty if there is none
    left: Any
    right: Any
    partial: Any  # room for the sums of all slices of N but the first: dweight, then dbias, of each slice
    panels: Any  # room in which each thread packs columns of `right`,
    left_rows: Any  # and columns of `left`, if they are packed


class InputGradient(NamedTuple):
    """linear = dout weight^T;  dinp = activation'(preactivation) * linear + dresidual

    Without an activation the product writes all of that to `dinp` directly.
    """

    dinp: Any
    linear: Any
    dout: Any
    weight: Any
    preactivation: Any
    dresidual: Any  # empty if there is none
    transposed: bool  # `weight` holds (C,OC), which the product takes transposed
    activation: int


@implements(contract.linear_backward)
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (N,OC), (N,C), (C,OC) -> dinp (N,C), dweight (C,OC), dbias (OC,)
    (N, (C, OC)), threads, dtype = (len(inp), weight.shape), thread_count(), inp.dtype
    left, right = inp, dout  # dweight (C,OC) += inp^T dout
    if is_transposed(dweight):  # dweight^T (OC,C) += dout^T inp
        left, right = dout, inp
        if dbias is not None:
            _bias_gradient(dbias, dout, 4 * TARGET.lanes(dout.itemsize))
            dbias = None
    dweight, packed = in_rows(dweight), operand_dtype(dtype, precision)
    multiply = product_address(packed)
    weight_plan = plan_weight_gradient(N, *dweight.shape, packed, threads, multiply)
    plan = plan_product(N, OC, C, packed, threads, multiply)
    linear = dinp
    if activation is not None and dresidual is not None:  # dinp may be the same array as dresidual
        linear = scratch("linear", N * C, dtype)[: N * C].reshape(N, C)
    _backward(
        (
            dweight, absent(dtype, 1) if dbias is None else dbias, left, right,
            scratch("slices", weight_plan.partial, dtype), scratch("columns", weight_plan.size, packed),
            scratch("left columns", threads * weight_plan.left, packed),
        ),
        (
            dinp, linear, dout, in_rows(weight), dout if preactivation is None else preactivation,
            absent(dtype, 2) if dresidual is None else dresidual, not is_transposed(weight), ACTIVATIONS[activation],
        ),
        (scratch("panels", plan.size, packed), scratch("left rows", threads * plan.left, packed)),
        tuple(weight_plan), tuple(plan),
    )  # fmt: skip


@kernel()
def _backward(weight_layer, layer, memory, weight_plan, plan):
    weight_layer, layer = WeightGradient(*weight_layer), InputGradient(*layer)
    memory, weight_plan, plan = ProductMemory(*memory), WeightGradientPlan(*weight_plan), ProductPlan(*plan)
    # dweight shares a loop with dinp (or with packing its weight, if all threads do that), because neither needs the
    # other's result.
    shares = weight_plan.shares if plan.packing == TOGETHER else max(weight_plan.shares, plan.shares)
    for share in numba.prange(shares):
        _weight_gradient_share(share, shares, weight_layer, weight_plan)
        if plan.packing == TOGETHER:
            pack_weight_share(share, shares, layer, memory, plan)
        else:
            _input_gradient_share(share, shares, layer, memory, plan)
    if plan.packing == TOGETHER:
        for share in numba.prange(plan.shares):
            _input_gradient_share(share, plan.shares, layer, memory, plan)
    if weight_plan.slices > 1:
        if weight_plan.folds == 0:
            _add_slices(0, 1, weight_layer, weight_plan.slices)
        else:
            for share in numba.prange(weight_plan.folds):
                _add_slices(share, weight_plan.folds, weight_layer, weight_plan.slices)


# ---------------------------------------------------------------------------------------------------------------- dinp


@device
def _activation_gradient(layer, first, last, start, stop):
    """dinp = activation'(preactivation) * linear + dresidual, for rows first:last and columns start:stop"""
    if layer.activation == NONE:
        return
    dinp, linear, preactivation = whole(layer.dinp), whole(layer.linear), whole(layer.preactivation)
    dresidual = whole(layer.dresidual)
    for n in range(first, last):
        dx, x = linear[n][start:stop], preactivation[n][start:stop]
        if layer.activation == GELU:
            gelu_gradient(dx, dx, x)
        elif layer.activation == GELU_ERF:
            gelu_erf_gradient(dx, dx, x)
        else:
            relu_gradient(dx, dx, x)
        if dresidual.rows > 0:
            add(dinp[n][start:stop], dx, dresidual[n][start:stop])


_product_share = make_product_share(_activation_gradient)


@device
def _input_gradient_share(share, shares, layer, memory, plan):
    """dinp = activation'(preactivation) * dout weight^T + dresidual, for some blocks"""
    linear, dresidual = whole(layer.linear), whole(layer.dresidual)
    no_bias = linear[0][:0]
    product = Product(
        linear, whole(layer.dout), oriented(layer.weight, layer.transposed), no_bias,
        dresidual if layer.activation == NONE else dresidual[:0],
    )  # fmt: skip
    _product_share(share, shares, product, layer, memory, plan)


# ------------------------------------------------------------------------------------------------- dweight and dbias


@device
def _sums_of(number, layer):
    """The sums dweight and dbias of one slice of N: the first slice adds in place, the others in `partial`."""
    dweight, dbias = whole(layer.dweight), whole(layer.dbias)
    if number == 0:
        return dweight, dbias
    R, M = dweight.rows, dweight.columns
    at = (number - 1) * (R + 1) * M
    return matrix(layer.partial, at, R, M, M), row_of(layer.partial, at + R * M, dbias.size)


@device
def _weight_gradient_share(share, shares, layer, plan):
    """dweight += left^T right;  dbias += sum_n right[n], for some blocks of all slices of N"""
    left, right = whole(layer.left), whole(layer.right)
    N, blocks = left.rows, plan.row_blocks * plan.column_blocks
    memory = ProductMemory(layer.panels, layer.left_rows)
    rooms = panels_for(memory, right.columns, plan), left_room(memory, plan)
    for item in range(share * plan.slices * blocks // shares, (share + 1) * plan.slices * blocks // shares):
        number, block = item // blocks, item % blocks
        first, last = block_rows(block // plan.column_blocks, plan.row_blocks, left.columns, plan.MR)
        start, end = block_rows(block % plan.column_blocks, plan.column_blocks, right.columns, plan.NR)
        n, m = number * N // plan.slices, (number + 1) * N // plan.slices
        dweight, dbias = _sums_of(number, layer)
        dw, db = dweight[first:last, start:end], dbias[start:end] if first == 0 else dbias[:0]
        nothing = nothing_like(dw)
        if number > 0:
            zero(db)
        before = dw if number == 0 else nothing
        # dw = left^T right + before;  db += sum_n right[n]
        multiply_add_streamed(dw, left[n:m, first:last].T, right[n:m, start:end], before, nothing, rooms, db)


@device
def _add_slices(share, shares, layer, slices):
    """Add the sums of the other slices, in their order, to some elements of dweight and to dbias."""
    dweight, dbias = row_of(layer.dweight, 0, layer.dweight.size), whole(layer.dbias)
    first, last = share * dweight.size // shares, (share + 1) * dweight.size // shares
    for number in range(1, slices):
        more, more_bias = _sums_of(number, layer)
        add(dweight[first:last], dweight[first:last], row_of(more, first, last - first))
        if share == 0:
            add(dbias, dbias, more_bias)


@kernel()
def _bias_gradient(dbias, dout, width):
    for block in numba.prange((dout.shape[1] + width - 1) // width):
        _bias_gradient_block(block * width, dbias, dout, width)


@device
def _bias_gradient_block(j, dbias, dout, width):
    add_column_sums(whole(dbias)[j : j + width], whole(dout)[:, j : j + width])
