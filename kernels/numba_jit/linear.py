"""The linear layer: out = activation(inp weight + bias) + residual.

The product runs on register tiles; see `_simd.shares`. Each element is a sum over k in one fixed order, however the
work is split, so the result has the same bits for any number of threads.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numba
import numpy as np

from .. import contract
from ..contract import Activation, Array, Precision, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.elementwise import add, copy, gelu, relu
from ._simd.normal import gelu_erf
from ._simd.product_plan import TOGETHER, ProductPlan, plan_product
from ._simd.shares import Product, ProductMemory, make_product_share, pack_share
from ._simd.tiles import product_address
from ._simd.views import whole
from ._simd.words import operand_dtype

NONE, RELU, GELU, GELU_ERF, COPY = range(5)  # COPY: no activation, but `linear` is stored apart from `out`
ACTIVATIONS = {None: NONE, "relu": RELU, "gelu": GELU, "gelu_erf": GELU_ERF}


class Forward(NamedTuple):
    """linear = inp weight + bias;  activated = activation(linear);  out = activated + residual

    Without an activation the product writes all of that to `out` directly.
    """

    out: Any
    activated: Any
    linear: Any
    inp: Any
    weight: Any
    bias: Any  # empty if there is none
    residual: Any  # empty if there is none
    transposed: bool  # `weight` holds the transpose, (OC,C)
    activation: int


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (N,C) @ (C,OC) + (OC,) + (N,OC) -> (N,OC)
    (N, (C, OC)), dtype = (len(inp), weight.shape), inp.dtype
    packed, threads = operand_dtype(dtype, precision), thread_count()
    plan = plan_product(N, C, OC, packed, threads, product_address(packed))
    code = COPY if activation is None and preactivation is not None else ACTIVATIONS[activation]
    activated = out
    if residual is not None and code != NONE:  # out may be the same array as residual, which is still needed
        activated = scratch("linear", N * OC, dtype)[: N * OC].reshape(N, OC)
    _forward(
        (
            out, activated, activated if preactivation is None else preactivation, inp, in_rows(weight),
            absent(dtype, 1) if bias is None else bias, absent(dtype, 2) if residual is None else residual,
            is_transposed(weight), code,
        ),
        (scratch("panels", plan.size, packed), scratch("left rows", threads * plan.left, packed)), tuple(plan),
    )  # fmt: skip


def is_transposed(weight: Array) -> bool:
    return not weight.flags.c_contiguous


def in_rows(weight: Array) -> Array:
    """The weight or its transpose, whichever is C-contiguous."""
    return weight.T if is_transposed(weight) else weight


@functools.cache
def absent(dtype: np.dtype[Any], dimensions: int) -> Array:
    """An empty array in place of an optional one that is not given."""
    return np.empty((0,) * dimensions, dtype)


# ------------------------------------------------------------------------------------------------------------- kernels
# Python passes plain tuples, which Numba dispatches faster than named ones; the kernels name their fields. The body of
# a parallel loop is a single call, because Numba's transformation of such loops is slow for large bodies.


@kernel()
def _forward(layer, memory, plan):
    layer, memory, plan = Forward(*layer), ProductMemory(*memory), ProductPlan(*plan)
    if plan.packing == TOGETHER:
        count = (layer.out.shape[1] + plan.NR - 1) // plan.NR
        for share in numba.prange(count):
            pack_weight_share(share, count, layer, memory, plan)
    for share in numba.prange(plan.shares):
        _forward_share(share, layer, memory, plan)


@device
def oriented(weight, transposed):
    """A weight as a matrix, or its transpose."""
    W = whole(weight)
    return W.T if transposed else W


@device
def pack_weight_share(share, shares, layer, memory, plan):
    """Pack some panels of a layer's weight."""
    pack_share(share, shares, oriented(layer.weight, layer.transposed), memory, plan)


@device
def _activate(layer, first, last, start, stop):
    """out = activation(linear) + residual, for rows first:last and columns start:stop"""
    if layer.activation == NONE:
        return
    out, activated, linear = whole(layer.out), whole(layer.activated), whole(layer.linear)
    residual = whole(layer.residual)
    for n in range(first, last):
        result, x = activated[n][start:stop], linear[n][start:stop]
        if layer.activation == GELU:
            gelu(result, x)
        elif layer.activation == GELU_ERF:
            gelu_erf(result, x)
        elif layer.activation == RELU:
            relu(result, x)
        else:
            copy(result, x)
        if residual.rows > 0:
            add(out[n][start:stop], result, residual[n][start:stop])


_product_share = make_product_share(_activate)


@device
def _forward_share(share, layer, memory, plan):
    """out = activation(inp weight + bias) + residual, for some blocks"""
    residual = whole(layer.residual)
    product = Product(
        whole(layer.linear), whole(layer.inp), oriented(layer.weight, layer.transposed), whole(layer.bias),
        residual if layer.activation == NONE else residual[:0],
    )  # fmt: skip
    _product_share(share, plan.shares, product, layer, memory, plan)
