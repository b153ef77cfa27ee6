"""Numbers computed from whole rows: products, sums of squares, maxima. The order of a sum depends on the size alone."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .passes import Operand, operands, vector_loop
from .vector import I64, Lanes, Vec
from .views import struct


@intrinsic
def dot(typingctx, x, y):
    """The sum of x[i] * y[i]"""

    def codegen(context, builder, signature, arguments):
        left, right = operands(context, builder, signature, arguments)
        lanes = left.lanes

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            return [lanes.fma(left.load(offset, mask), right.load(offset, mask), carried[0])]

        (total,) = vector_loop(lanes, left.size, [lanes.vec(0.0)], body)
        return lanes.reduce(total, operator.add)

    return x.dtype(x, y), codegen


@intrinsic
def four_dots(typingctx, out, x, Y):
    """out[r] = dot(x, Y[r]) for the first four rows of Y, with the same bits

    x is loaded once, and the four folds at the end overlap.
    """

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, x.dtype)
        to, row, m = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        left, rows = Operand(lanes, row), [m.data]
        for _ in range(3):
            rows.append(builder.gep(rows[-1], [m.row]))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            a = left.load(offset, mask)
            load = lanes.load_halves if Y.dtype == types.uint16 else lanes.load
            loaded = [load(builder.gep(row, [offset]), mask) for row in rows]
            return [lanes.fma(a, b, total) for b, total in zip(loaded, carried, strict=True)]

        for r, total in enumerate(vector_loop(lanes, left.size, [lanes.vec(0.0)] * 4, body)):
            builder.store(lanes.reduce(total, operator.add), builder.gep(to.data, [ir.Constant(I64, r)]))
        return context.get_dummy_value()

    return types.void(out, x, Y), codegen


@intrinsic
def sum_of_squares(typingctx, x):
    """The sum of x[i]^2, in float64 whatever the dtype of x"""

    def codegen(context, builder, signature, arguments):
        (source,) = operands(context, builder, signature, arguments)
        lanes = source.lanes
        doubles = ir.VectorType(ir.DoubleType(), lanes.count)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            value = source.load(offset, mask)
            wide = value if x.dtype.bitwidth == 64 else Vec(lanes, builder.fpext(value.value, doubles))
            return [lanes.fma(wide, wide, carried[0])]

        zero = Vec(lanes, ir.Constant(doubles, [0.0] * lanes.count))
        (total,) = vector_loop(lanes, source.size, [zero], body, 4)
        return lanes.reduce(total, operator.add)

    return types.float64(x), codegen


@intrinsic
def maximum(typingctx, x):
    """The largest element; -inf for an empty row. NaNs are skipped: they show in the exponentials that follow."""

    def codegen(context, builder, signature, arguments):
        (source,) = operands(context, builder, signature, arguments)
        lanes = source.lanes
        lowest = lanes.vec(float("-inf"))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            return [lanes.maximum(source.load(offset, mask, lowest), carried[0])]

        (largest,) = vector_loop(lanes, source.size, [lowest], body)
        return lanes.reduce(largest, lanes.maximum)

    return x.dtype(x), codegen
