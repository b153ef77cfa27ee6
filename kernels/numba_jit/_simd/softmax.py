"""The exponentials of a softmax over a row, and their sum."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.extending import intrinsic

from .exponential import exp_of
from .passes import operands, vector_loop
from .vector import Vec


@intrinsic
def exp_into(typingctx, out, x, scale, largest):
    """out[i] = exp((x[i] - largest) * scale); returns their sum"""

    def codegen(context, builder, signature, arguments):
        target, source, scale_, largest_ = operands(context, builder, signature, arguments)
        lanes = target.lanes
        exp, center = exp_of(lanes, lanes.splat(scale_)), lanes.splat(largest_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            power = exp(source.load(offset, mask) - center)
            target.store(power, offset, mask)
            return [carried[0] + (power if mask is None else power.where(mask, 0.0))]

        (total,) = vector_loop(lanes, target.size, [lanes.vec(0.0)], body)
        return lanes.reduce(total, operator.add)

    return x.dtype(out, x, x.dtype, x.dtype), codegen


@intrinsic
def exp_sum(typingctx, x, scale, largest):
    """The sum of exp((x[i] - largest) * scale), with the bits of `exp_into`; nothing is written"""

    def codegen(context, builder, signature, arguments):
        source, scale_, largest_ = operands(context, builder, signature, arguments)
        lanes = source.lanes
        exp, center = exp_of(lanes, lanes.splat(scale_)), lanes.splat(largest_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            power = exp(source.load(offset, mask) - center)
            return [carried[0] + (power if mask is None else power.where(mask, 0.0))]

        (total,) = vector_loop(lanes, source.size, [lanes.vec(0.0)], body)
        return lanes.reduce(total, operator.add)

    return x.dtype(x, x.dtype, x.dtype), codegen
