"""The AdamW update of a row of parameters."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


class Factors(NamedTuple):
    """The numbers of an update, all of the parameters' dtype; new1 is 1 - beta1, new2 is 1 - beta2."""

    gradient_scale: float
    beta1: float
    new1: float
    beta2: float
    new2: float
    eps: float
    rate: float
    decay: float


@intrinsic
def adamw_update(typingctx, parameters, gradients, first_moment, second_moment, factors):
    """With p, g, m, v for an element of each row, and g first scaled by gradient_scale:

    m = beta1 m + new1 g;  v = beta2 v + new2 g^2;  p = p - (rate * m / (sqrt(v) + eps) + decay * p);  g = 0
    """

    def codegen(context, builder, signature, arguments):
        p, g, m, v, factors_ = operands(context, builder, signature, arguments)
        lanes = p.lanes
        numbers = Factors(*map(lanes.splat, cgutils.unpack_tuple(builder, factors_)))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            gradient = g.load(offset, mask) * numbers.gradient_scale
            first = lanes.fma(numbers.beta1, m.load(offset, mask), numbers.new1 * gradient)
            second = lanes.fma(numbers.beta2, v.load(offset, mask), numbers.new2 * gradient * gradient)
            step = numbers.rate * first / (lanes.sqrt(second) + numbers.eps)
            value = p.load(offset, mask)
            p.store(value - lanes.fma(numbers.decay, value, step), offset, mask)
            m.store(first, offset, mask)
            v.store(second, offset, mask)
            g.store(lanes.vec(0.0), offset, mask)
            return []

        vector_loop(lanes, p.size, [], body)
        return context.get_dummy_value()

    return types.void(parameters, gradients, first_moment, second_moment, factors), codegen
