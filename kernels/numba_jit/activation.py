"""Activations: ReLU, and both forms of GELU. The threads share blocks of elements.

The formulas are in `_simd.elementwise`, because the linear layer applies them too.
"""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._simd.elementwise import gelu, gelu_gradient, relu, relu_gradient
from ._simd.normal import gelu_erf, gelu_erf_gradient
from ._simd.views import row_of

BLOCK = 4096  # elements


@device
def blocks_of(x):
    return (x.size + BLOCK - 1) // BLOCK


@device
def part(x, block):
    """A block of the elements of x, whatever its shape."""
    return row_of(x, block * BLOCK, min(BLOCK, x.size - block * BLOCK))


@implements(contract.relu_forward)
def relu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    _relu_forward(out, inp)


@kernel()
def _relu_forward(out, inp):
    # out = max(inp, 0)
    for block in numba.prange(blocks_of(inp)):
        relu(part(out, block), part(inp, block))


@implements(contract.relu_backward)
def relu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    _relu_backward(dinp, dout, inp)


@kernel()
def _relu_backward(dinp, dout, inp):
    # dinp = dout where inp > 0, else 0
    for block in numba.prange(blocks_of(inp)):
        relu_gradient(part(dinp, block), part(dout, block), part(inp, block))


@implements(contract.gelu_forward)
def gelu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    _gelu_forward(out, inp)


@kernel()
def _gelu_forward(out, inp):
    # out = gelu(inp)
    for block in numba.prange(blocks_of(inp)):
        gelu(part(out, block), part(inp, block))


@implements(contract.gelu_backward)
def gelu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    _gelu_backward(dinp, dout, inp)


@kernel()
def _gelu_backward(dinp, dout, inp):
    # dinp = dout * gelu'(inp)
    for block in numba.prange(blocks_of(inp)):
        gelu_gradient(part(dinp, block), part(dout, block), part(inp, block))


@implements(contract.gelu_erf_forward)
def gelu_erf_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    _gelu_erf_forward(out, inp)


@kernel()
def _gelu_erf_forward(out, inp):
    # out = gelu_erf(inp)
    for block in numba.prange(blocks_of(inp)):
        gelu_erf(part(out, block), part(inp, block))


@implements(contract.gelu_erf_backward)
def gelu_erf_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    _gelu_erf_backward(dinp, dout, inp)


@kernel()
def _gelu_erf_backward(dinp, dout, inp):
    # dinp = dout * gelu_erf'(inp)
    for block in numba.prange(blocks_of(inp)):
        gelu_erf_gradient(part(dinp, block), part(dout, block), part(inp, block))
