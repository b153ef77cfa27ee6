"""The rotation of points in a plane, whose coordinates lie in two rows."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


@intrinsic
def rotate(typingctx, first, second, cosines, sines):
    """first[i], second[i] = first[i] cosines[i] - second[i] sines[i], second[i] cosines[i] + first[i] sines[i]

    With the two rows exchanged, it rotates by the negative angles.
    """

    def codegen(context, builder, signature, arguments):
        x, y, cos, sin = operands(context, builder, signature, arguments)
        lanes = x.lanes

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            a, b, c, s = (row.load(offset, mask) for row in (x, y, cos, sin))
            x.store(lanes.fma(a, c, -(b * s)), offset, mask)
            y.store(lanes.fma(b, c, a * s), offset, mask)
            return []

        vector_loop(lanes, x.size, [], body)
        return context.get_dummy_value()

    return types.void(first, second, cosines, sines), codegen
