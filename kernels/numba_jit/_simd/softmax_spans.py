"""The pieces of a softmax over a span of consecutive elements."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place, span_loop
from .vector import Lanes, Vec


@intrinsic
def max_span(typingctx, X, x, n):
    """The largest of X[x : x + n]; -inf for n = 0. NaNs are passed over: they show in the exp that follows."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source = place(context, builder, X, arguments[0], arguments[1])
        lowest = lanes.vec(float("-inf"))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            value = lanes.load(builder.gep(source, [offset]), mask, lowest)
            return [lanes.maximum(value, carried[0])]

        (largest,) = span_loop(lanes, arguments[2], [lowest], body)
        return lanes.reduce(largest, lanes.maximum)

    return X.dtype(X, types.int64, types.int64), codegen


@intrinsic
def exp_span(typingctx, OUT, out, X, x, n, scale, shift):
    """OUT[out + i] = exp((X[x + i] - shift) * scale) for i < n; returns their sum"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        target = place(context, builder, OUT, arguments[0], arguments[1])
        source = place(context, builder, X, arguments[2], arguments[3])
        exp, center = lanes.exp_of(lanes.splat(arguments[5])), lanes.splat(arguments[6])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            power = exp(lanes.load(builder.gep(source, [offset]), mask) - center)
            lanes.store(power, builder.gep(target, [offset]), mask)
            if mask is not None:
                power = power.where(mask, 0.0)
            return [carried[0] + power]

        (total,) = span_loop(lanes, arguments[4], [lanes.vec(0.0)], body)
        return lanes.reduce(total, lambda a, b: a + b)

    n64 = types.int64
    return X.dtype(OUT, n64, X, n64, n64, X.dtype, X.dtype), codegen


@intrinsic
def exp_sum_span(typingctx, X, x, n, scale, shift):
    """The sum of exp((X[x + i] - shift) * scale) for i < n, with the bits of `exp_span`; nothing is written"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source = place(context, builder, X, arguments[0], arguments[1])
        exp, center = lanes.exp_of(lanes.splat(arguments[3])), lanes.splat(arguments[4])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            power = exp(lanes.load(builder.gep(source, [offset]), mask) - center)
            return [carried[0] + (power if mask is None else power.where(mask, 0.0))]

        (total,) = span_loop(lanes, arguments[2], [lanes.vec(0.0)], body)
        return lanes.reduce(total, lambda a, b: a + b)

    return X.dtype(X, types.int64, types.int64, X.dtype, X.dtype), codegen
