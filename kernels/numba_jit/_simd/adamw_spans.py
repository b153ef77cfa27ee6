"""One span of the AdamW update, and of the sum of squares that clipping needs."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place, span_loop
from .vector import Lanes, Vec


@intrinsic
def adamw_span(typingctx, P, G, M, V, start, n, gradient_scale, beta1, new1, beta2, new2, eps, rate, decay):
    """For start <= i < start + n, with g = G[i] * gradient_scale:

    M[i] = beta1 M[i] + new1 g;  V[i] = beta2 V[i] + new2 g^2;  G[i] = 0
    P[i] = P[i] - (rate * M[i] / (sqrt(V[i]) + eps) + decay * P[i])
    """

    def codegen(context, builder, signature, arguments):
        start_, n_ = arguments[4], arguments[5]
        lanes = Lanes(builder, P.dtype)
        p, g, m, v = (place(context, builder, t, a, start_) for t, a in zip((P, G, M, V), arguments[:4], strict=True))
        scale, b1, n1, b2, n2, epsilon, lr, lost = (lanes.splat(argument) for argument in arguments[6:])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            p_at, g_at, m_at, v_at = (builder.gep(array, [offset]) for array in (p, g, m, v))
            gradient = lanes.load(g_at, mask) * scale
            first = lanes.fma(b1, lanes.load(m_at, mask), n1 * gradient)
            second = lanes.fma(b2, lanes.load(v_at, mask), n2 * gradient * gradient)
            step = lr * first / (lanes.sqrt(second) + epsilon)
            value = lanes.load(p_at, mask)
            lanes.store(value - lanes.fma(lost, value, step), p_at, mask)
            lanes.store(first, m_at, mask)
            lanes.store(second, v_at, mask)
            lanes.store(lanes.vec(0.0), g_at, mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n64, real = types.int64, P.dtype
    return types.void(P, G, M, V, n64, n64, *[real] * 8), codegen


@intrinsic
def squares_span(typingctx, X, x, n):
    """The sum of X[x + i]^2 for i < n, in float64 whatever X is"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source = place(context, builder, X, arguments[0], arguments[1])
        doubles = ir.VectorType(ir.DoubleType(), lanes.count)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            value = lanes.load(builder.gep(source, [offset]), mask)
            wide = value if X.dtype.bitwidth == 64 else Vec(lanes, builder.fpext(value.value, doubles))
            return [lanes.fma(wide, wide, carried[0])]

        zero = Vec(lanes, ir.Constant(doubles, [0.0] * lanes.count))
        (total,) = span_loop(lanes, arguments[2], [zero], body, 4)
        return lanes.reduce(total, operator.add)

    return types.float64(X, types.int64, types.int64), codegen
