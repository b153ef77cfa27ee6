"""The AdamW update of a row of parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


class Factors(NamedTuple):
    """The numbers that an update multiplies with or adds."""

    gradient_scale: float
    beta1: float
    new1: float  # 1 - beta1
    beta2: float
    new2: float  # 1 - beta2
    eps: float
    rate: float


@intrinsic
def adamw_update(typingctx, parameters, gradients, first_moment, second_moment, factors, decay):
    """With w, g, m, v for an element of each row, and the numbers rounded to their dtype:

    g = g * gradient_scale;  m = beta1 m + new1 g;  v = beta2 v + new2 g^2
    w = w - (rate * m / (sqrt(v) + eps) + decay * w);  g = 0
    """

    def codegen(context, builder, signature, arguments):
        w, g, m, v, factors_, decay_ = operands(context, builder, signature, arguments)
        lanes = w.lanes

        def number(kind: types.Type, value: ir.Value) -> Any:
            return lanes.splat(context.cast(builder, value, kind, parameters.dtype))

        factor = Factors(*map(number, factors, cgutils.unpack_tuple(builder, factors_)))
        decays = number(decay, decay_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            gradient = g.load(offset, mask) * factor.gradient_scale
            first = lanes.fma(factor.beta1, m.load(offset, mask), factor.new1 * gradient)
            second = lanes.fma(factor.beta2, v.load(offset, mask), factor.new2 * gradient * gradient)
            update = factor.rate * first / (lanes.sqrt(second) + factor.eps)
            weight = w.load(offset, mask)
            w.store(weight - lanes.fma(decays, weight, update), offset, mask)
            m.store(first, offset, mask)
            v.store(second, offset, mask)
            g.store(lanes.vec(0.0), offset, mask)
            return []

        vector_loop(lanes, w.size, [], body)
        return context.get_dummy_value()

    return types.void(parameters, gradients, first_moment, second_moment, factors, decay), codegen
