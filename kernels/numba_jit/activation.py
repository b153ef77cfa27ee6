"""ReLU and GELU: element-wise, a block of elements to a thread."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import kernel
from ._simd.elementwise import gelu, gelu_gradient, relu, relu_gradient
from ._simd.views import row_of

BLOCK = 4096  # elements; fixed, so that the split of the work does not depend on the number of threads


@implements(contract.relu_forward)
def relu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    _relu_forward(out.reshape(-1), inp.reshape(-1))


@implements(contract.relu_backward)
def relu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    _relu_backward(dinp.reshape(-1), dout.reshape(-1), inp.reshape(-1))


@implements(contract.gelu_forward)
def gelu_forward(out: Array, inp: Array) -> None:
    # (N,C) -> (N,C)
    _gelu_forward(out.reshape(-1), inp.reshape(-1))


@implements(contract.gelu_backward)
def gelu_backward(dinp: Array, dout: Array, inp: Array) -> None:
    # (N,C), (N,C) -> (N,C)
    _gelu_backward(dinp.reshape(-1), dout.reshape(-1), inp.reshape(-1))


@kernel()
def _relu_forward(out, inp):
    for block in numba.prange((inp.size + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, inp.size - start)
        relu(row_of(out, start, size), row_of(inp, start, size))


@kernel()
def _relu_backward(dinp, dout, inp):
    for block in numba.prange((inp.size + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, inp.size - start)
        relu_gradient(row_of(dinp, start, size), row_of(dout, start, size), row_of(inp, start, size))


@kernel()
def _gelu_forward(out, inp):
    for block in numba.prange((inp.size + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, inp.size - start)
        gelu(row_of(out, start, size), row_of(inp, start, size))


@kernel()
def _gelu_backward(dinp, dout, inp):
    for block in numba.prange((inp.size + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        size = min(BLOCK, inp.size - start)
        gelu_gradient(row_of(dinp, start, size), row_of(dout, start, size), row_of(inp, start, size))
