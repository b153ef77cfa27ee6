"""The exponentials of a softmax over a row, and their sum."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.extending import intrinsic

from .exponential import exp_of
from .passes import Operand, operands, vector_loop
from .vector import Vec


@intrinsic
def exp_into(typingctx, out, x, scale, largest):
    """out[i] = exp((x[i] - largest) * scale);  returns their sum"""

    def codegen(context, builder, signature, arguments):
        target, source, scale_, largest_ = operands(context, builder, signature, arguments)
        return _exponentials(target, source, scale_, largest_)

    return x.dtype(out, x, x.dtype, x.dtype), codegen


@intrinsic
def exp_sum(typingctx, x, scale, largest):
    """The sum of exp((x[i] - largest) * scale), with the bits of `exp_into`; writes nothing"""

    def codegen(context, builder, signature, arguments):
        source, scale_, largest_ = operands(context, builder, signature, arguments)
        return _exponentials(None, source, scale_, largest_)

    return x.dtype(x, x.dtype, x.dtype), codegen


def _exponentials(target: Operand | None, source: Operand, scale: ir.Value, largest: ir.Value) -> ir.Value:
    lanes = source.lanes
    exp, center = exp_of(lanes, lanes.splat(scale)), lanes.splat(largest)

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        power = exp(source.load(offset, mask) - center)
        if target is not None:
            target.store(power, offset, mask)
        return [carried[0] + (power if mask is None else power.where(mask, 0.0))]

    (total,) = vector_loop(lanes, source.size, [lanes.vec(0.0)], body)
    return lanes.reduce(total, operator.add)
