"""Rows of a table that lie anywhere in memory: the CPU cannot guess the next one, so it is asked for ahead."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place, span_loop
from .vector import Lanes, Vec


@intrinsic
def add_and_prefetch_span(typingctx, OUT, out, X, x, Y, y, n, SOON, soon):
    """OUT[out + i] = X[x + i] + Y[y + i] for i < n, while SOON[soon : soon + n] is brought to the second cache"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, X_, x_, Y_, y_, n_, SOON_, soon_ = arguments
        lanes = Lanes(builder, X.dtype)
        target, following = place(context, builder, OUT, OUT_, out_), place(context, builder, SOON, SOON_, soon_)
        left, right = place(context, builder, X, X_, x_), place(context, builder, Y, Y_, y_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            lanes.prefetch(builder.gep(following, [offset]))
            total = lanes.load(builder.gep(left, [offset]), mask) + lanes.load(builder.gep(right, [offset]), mask)
            lanes.store(total, builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n64 = types.int64
    return types.void(OUT, n64, X, n64, Y, n64, n64, SOON, n64), codegen

