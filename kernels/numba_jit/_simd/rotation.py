"""Rotations of points in a plane, for rotary positions."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


@intrinsic
def rotate(typingctx, row, cosines, sines, direction):
    """Rotate the parts x of a row, each 2 H long, where H is the size of `cosines` and `sines`. For i < H:

    x[i], x[i+H] = x[i] cosines[i] - x[i+H] s[i],  x[i+H] cosines[i] + x[i] s[i],  s = direction * sines
    """

    def codegen(context, builder, signature, arguments):
        x, cos, sin, direction_ = operands(context, builder, signature, arguments)
        lanes, H = x.lanes, cos.size
        directions, width = lanes.splat(direction_), builder.add(H, H)
        parts = builder.sdiv(x.size, width)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            c, s = cos.load(offset, mask), sin.load(offset, mask) * directions
            with cgutils.for_range(builder, parts) as loop:  # the angles stay in registers
                first = builder.add(builder.mul(loop.index, width), offset)
                second = builder.add(first, H)
                a, b = x.load(first, mask), x.load(second, mask)
                x.store(lanes.fma(a, c, -(b * s)), first, mask)
                x.store(lanes.fma(b, c, a * s), second, mask)
            return []

        vector_loop(lanes, H, [], body)
        return context.get_dummy_value()

    return types.void(row, cosines, sines, row.dtype), codegen
