"""What Muon does with single elements: momentum, weight decay, and the update before it is orthogonalized."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


class Factors(NamedTuple):
    """The numbers that an update multiplies with."""

    gradient_scale: float
    beta: float
    new: float  # 1 - beta
    decay: float
    rate: float  # of the orthogonal update


@intrinsic
def momentum_update(typingctx, parameters, gradients, momentum, factors):
    """With w, g, m for an element of each row, and the numbers rounded to their dtype:

    g = g * gradient_scale;  m = beta m + new g;  w = w - decay w;  g = beta m + new g, the update
    """

    def codegen(context, builder, signature, arguments):
        w, g, m, factors_ = operands(context, builder, signature, arguments)
        lanes = w.lanes

        def number(kind: types.Type, value: ir.Value) -> Any:
            return lanes.splat(context.cast(builder, value, kind, parameters.dtype))

        factor = Factors(*map(number, factors, cgutils.unpack_tuple(builder, factors_)))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            new = factor.new * (g.load(offset, mask) * factor.gradient_scale)
            mean = lanes.fma(factor.beta, m.load(offset, mask), new)
            weight = w.load(offset, mask)
            w.store(weight - factor.decay * weight, offset, mask)
            m.store(mean, offset, mask)
            g.store(lanes.fma(factor.beta, mean, new), offset, mask)
            return []

        vector_loop(lanes, w.size, [], body)
        return context.get_dummy_value()

    return types.void(parameters, gradients, momentum, factors), codegen
