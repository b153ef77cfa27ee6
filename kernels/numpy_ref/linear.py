"""The linear layer: out = activation(inp @ weight + bias) + residual.

Weights have shape (C, OC), so that a row of activations multiplies them from the left, as in GPT-2's files.
"""

from __future__ import annotations

from .. import contract
from ..bfloat16 import operand
from ..contract import Activation, Array, Precision, implements
from ._sums import sum_of_rows
from .activation import gelu, gelu_erf, gelu_erf_gradient, gelu_gradient, relu, relu_gradient

ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_erf": gelu_erf}
GRADIENTS = {"relu": relu_gradient, "gelu": gelu_gradient, "gelu_erf": gelu_erf_gradient}


@implements(contract.linear_forward)
def linear_forward(
    out: Array, inp: Array, weight: Array, bias: Array | None = None,
    *, activation: Activation | None = None, preactivation: Array | None = None, residual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (N,C) @ (C,OC) + (OC,) + (N,OC) -> (N,OC)
    inp, weight = operand(inp, precision), operand(weight, precision)
    result = inp @ weight
    if bias is not None:
        result = result + bias
    if preactivation is not None:
        preactivation[...] = result  # the backward pass needs it for the activation's derivative
    if activation is not None:
        result = ACTIVATIONS[activation](result)
    if residual is not None:
        result = result + residual
    out[...] = result


@implements(contract.linear_backward)
def linear_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array,
    *, activation: Activation | None = None, preactivation: Array | None = None, dresidual: Array | None = None,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (N,OC), (N,C), (C,OC) -> dinp (N,C), dweight (C,OC), dbias (OC,)
    exact_dout = dout  # only operands of products are rounded
    inp, weight, dout = operand(inp, precision), operand(weight, precision), operand(dout, precision)

    # forward: out = inp @ weight + bias.  Each output is a sum of products, so the gradient of one factor is the other
    # factor times dout, summed over all its uses: inp[n,c] is used in OC outputs, weight[c,oc] in N rows.
    dinp_result = dout @ weight.T
    dweight += inp.T @ dout
    if dbias is not None:
        dbias += sum_of_rows(exact_dout)

    # forward, in the layer before: inp = activation(preactivation)
    if activation is not None and preactivation is not None:
        dinp_result = GRADIENTS[activation](dinp_result, preactivation)

    # forward: the input also bypassed this layer, residual = inp, so the gradient from there is added
    if dresidual is not None:
        dinp_result = dinp_result + dresidual
    dinp[...] = dinp_result
