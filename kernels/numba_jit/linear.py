"""The linear layer: out = activation(inp weight + bias) + residual.

The product runs on register tiles; see `_simd.shares`. However it is split among threads, each element is a sum over k
in one fixed order, so no number of threads changes a bit.
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
from ._runtime.threads import thread_count
from ._simd.elementwise import add, copy, gelu, relu
from ._simd.product_plan import TOGETHER, ProductPlan, plan_product
from ._simd.shares import Product, make_product_share, pack_share
from ._simd.tiles import product_address
from ._simd.views import whole

NONE, RELU, GELU, COPY = 0, 1, 2, 3  # COPY: no activation, but the product is kept by itself
ACTIVATIONS = {None: NONE, "relu": RELU, "gelu": GELU}


class Forward(NamedTuple):
    """out = activated + residual,  activated = activation(linear),  linear = inp weight + bias

    Without an activation the product is written to `out` at once, with bias and residual.
    """

    out: Any
    activated: Any
    linear: Any
    inp: Any
    weight: Any
    bias: Any  # empty if there is none
    residual: Any  # empty if there is none
    transposed: bool  # `weight` is the transpose of the weight, (OC,C)
    activation: int


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C) @ (C,OC) + (OC,) + (N,OC) -> (N,OC)
    (N, (C, OC)), dtype = (len(inp), weight.shape), inp.dtype
    plan = plan_product(N, C, OC, dtype, thread_count(), product_address(dtype))
    code = COPY if activation is None and preactivation is not None else ACTIVATIONS[activation]
    activated = out
    if residual is not None and code != NONE:  # out may be residual, which is still needed
        activated = scratch("linear", N * OC, dtype)[: N * OC].reshape(N, OC)
    _forward(
        (
            out, activated, activated if preactivation is None else preactivation, inp, in_rows(weight),
            absent(dtype, 1) if bias is None else bias, absent(dtype, 2) if residual is None else residual,
            is_transposed(weight), code,
        ),
        scratch("panels", plan.size, dtype), tuple(plan),
    )  # fmt: skip


def is_transposed(weight: Array) -> bool:
    return not weight.flags.c_contiguous


def in_rows(weight: Array) -> Array:
    """A weight, or its transpose, whichever is in C order."""
    return weight.T if is_transposed(weight) else weight


@functools.cache
def absent(dtype: np.dtype[Any], dimensions: int) -> Array:
    """Stands for an array that is not given."""
    return np.empty((0,) * dimensions, dtype)


# ------------------------------------------------------------------------------------------------------------- kernels
# Kernels take plain tuples, which are dispatched faster, and name their fields. A parallel loop only calls a function:
# Numba's transformation of such loops takes long over a large body.


@kernel()
def _forward(layer, memory, plan):
    layer, plan = Forward(*layer), ProductPlan(*plan)
    if plan.packing == TOGETHER:
        count = (layer.out.shape[1] + plan.NR - 1) // plan.NR
        for share in numba.prange(count):
            _pack_share(share, count, layer, memory, plan)
    for share in numba.prange(plan.shares):
        _forward_share(share, layer, memory, plan)


@device
def oriented(weight, transposed):
    """A weight as a matrix: transposed, if what lies in memory is its transpose."""
    W = whole(weight)
    return W.T if transposed else W


@device
def _pack_share(share, shares, layer, memory, plan):
    pack_share(share, shares, oriented(layer.weight, layer.transposed), memory, plan)


@device
def _activate(layer, first, last, start, stop):
    """out = activation(linear) + residual, for a block: along the rows, as they lie in memory."""
    if layer.activation == NONE:
        return
    out, activated, linear = whole(layer.out), whole(layer.activated), whole(layer.linear)
    residual = whole(layer.residual)
    for n in range(first, last):
        result, x = activated[n][start:stop], linear[n][start:stop]
        if layer.activation == GELU:
            gelu(result, x)
        elif layer.activation == RELU:
            relu(result, x)
        else:
            copy(result, x)
        if residual.rows > 0:
            add(out[n][start:stop], result, residual[n][start:stop])


_product_share = make_product_share(_activate)


@device
def _forward_share(share, layer, memory, plan):
    """linear = inp weight + bias, for some blocks, and what follows from it."""
    residual = whole(layer.residual)
    product = Product(
        whole(layer.linear), whole(layer.inp), oriented(layer.weight, layer.transposed), whole(layer.bias),
        residual if layer.activation == NONE else residual[:0],
    )  # fmt: skip
    _product_share(share, plan.shares, product, layer, memory, plan)
