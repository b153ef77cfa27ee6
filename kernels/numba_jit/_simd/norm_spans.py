"""The pieces of layer normalisation and of its gradient over one row, and products of two rows."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place, span_loop
from .vector import I64, Lanes, Vec


@intrinsic
def sum_span(typingctx, X, x, n):
    """The sum of X[x : x + n]"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source = place(context, builder, X, arguments[0], arguments[1])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            return [carried[0] + lanes.load(builder.gep(source, [offset]), mask)]

        (total,) = span_loop(lanes, arguments[2], [lanes.vec(0.0)], body)
        return lanes.reduce(total, lambda a, b: a + b)

    return X.dtype(X, types.int64, types.int64), codegen


@intrinsic
def dot_span(typingctx, X, x, Y, y, n):
    """The sum of X[x + i] * Y[y + i] for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        left = place(context, builder, X, arguments[0], arguments[1])
        right = place(context, builder, Y, arguments[2], arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            a, b = lanes.load(builder.gep(left, [offset]), mask), lanes.load(builder.gep(right, [offset]), mask)
            return [lanes.fma(a, b, carried[0])]

        (total,) = span_loop(lanes, arguments[4], [lanes.vec(0.0)], body)
        return lanes.reduce(total, lambda a, b: a + b)

    n64 = types.int64
    return X.dtype(X, n64, Y, n64, n64), codegen


@intrinsic
def four_dots(typingctx, OUT, out, X, x, Y, y, y_row, n):
    """OUT[out + r] = the sum of X[x + i] * Y[y + r y_row + i] for i < n, for r < 4, with the bits of `dot_span`: X is
    loaded once, and the four folds at the end overlap"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, X_, x_, Y_, y_, y_row_, n_ = arguments
        lanes = Lanes(builder, X.dtype)
        target, left = place(context, builder, OUT, OUT_, out_), place(context, builder, X, X_, x_)
        rows = [place(context, builder, Y, Y_, y_)]
        for _ in range(3):
            rows.append(builder.gep(rows[-1], [y_row_]))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            a = lanes.load(builder.gep(left, [offset]), mask)
            loaded = [lanes.load(builder.gep(row, [offset]), mask) for row in rows]
            return [lanes.fma(a, b, total) for b, total in zip(loaded, carried, strict=True)]

        for r, total in enumerate(span_loop(lanes, n_, [lanes.vec(0.0)] * 4, body)):
            builder.store(lanes.reduce(total, lambda a, b: a + b), builder.gep(target, [ir.Constant(I64, r)]))
        return context.get_dummy_value()

    n64 = types.int64
    return types.void(OUT, n64, X, n64, Y, n64, n64, n64), codegen


@intrinsic
def squared_distance_span(typingctx, X, x, n, center):
    """The sum of (X[x + i] - center)^2 for i < n"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source = place(context, builder, X, arguments[0], arguments[1])
        middle = lanes.splat(arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            distance = lanes.load(builder.gep(source, [offset]), mask, middle) - middle
            return [lanes.fma(distance, distance, carried[0])]

        (total,) = span_loop(lanes, arguments[2], [lanes.vec(0.0)], body)
        return lanes.reduce(total, lambda a, b: a + b)

    return X.dtype(X, types.int64, types.int64, X.dtype), codegen


@intrinsic
def normalize_span(typingctx, OUT, out, X, x, n, mean, rstd, W, B, use_b):
    """OUT[out + i] = (X[x + i] - mean) * rstd * W[i] + B[i] if use_b, for i < n"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, X_, x_, n_, mean_, rstd_, W_, B_, use_b_ = arguments
        lanes = Lanes(builder, X.dtype)
        zero = ir.Constant(I64, 0)
        target, source = place(context, builder, OUT, OUT_, out_), place(context, builder, X, X_, x_)
        weight, bias = place(context, builder, W, W_, zero), place(context, builder, B, B_, zero)
        center, scale = lanes.splat(mean_), lanes.splat(rstd_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (lanes.load(builder.gep(source, [offset]), mask) - center) * scale
            result = norm * lanes.load(builder.gep(weight, [offset]), mask)
            result = lanes.add_if(use_b_, result, lambda: lanes.load(builder.gep(bias, [offset]), mask))
            lanes.store(result, builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n64, real = types.int64, X.dtype
    return types.void(OUT, n64, X, n64, n64, real, real, W, B, types.boolean), codegen


@intrinsic
def normalize_sums_span(typingctx, D, d, X, x, n, mean, rstd, W):
    """With norm = (X[x + i] - mean) * rstd and dnorm = D[d + i] * W[i]: the sums of dnorm and of dnorm * norm"""

    def codegen(context, builder, signature, arguments):
        D_, d_, X_, x_, n_, mean_, rstd_, W_ = arguments
        lanes = Lanes(builder, X.dtype)
        gradient, source = place(context, builder, D, D_, d_), place(context, builder, X, X_, x_)
        weight = place(context, builder, W, W_, ir.Constant(I64, 0))
        center, scale = lanes.splat(mean_), lanes.splat(rstd_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (lanes.load(builder.gep(source, [offset]), mask, center) - center) * scale
            dnorm = lanes.load(builder.gep(gradient, [offset]), mask) * lanes.load(builder.gep(weight, [offset]), mask)
            return [carried[0] + dnorm, lanes.fma(dnorm, norm, carried[1])]

        totals = span_loop(lanes, n_, [lanes.vec(0.0), lanes.vec(0.0)], body)
        return context.make_tuple(builder, signature.return_type, [lanes.reduce(t, lambda a, b: a + b) for t in totals])

    n64, real = types.int64, X.dtype
    return types.UniTuple(real, 2)(D, n64, X, n64, n64, real, real, W), codegen


@intrinsic
def normalize_gradient_span(
    typingctx, DX, dx, DW, dw, DB, db, D, d, X, x, n, mean, rstd, W, mean_dnorm, mean_dnorm_norm, RES, res, use_res
):
    """DX[dx + i] = (dnorm - mean_dnorm - norm * mean_dnorm_norm) * rstd + RES[res + i] if use_res, for i < n;
    DW[dw + i] += D[d + i] * norm;  DB[db + i] += D[d + i]"""

    def codegen(context, builder, signature, arguments):
        (DX_, dx_, DW_, dw_, DB_, db_, D_, d_, X_, x_, n_, mean_, rstd_, W_, mean_dnorm_, mean_dnorm_norm_,
         RES_, res_, use_res_) = arguments  # fmt: skip
        lanes = Lanes(builder, X.dtype)
        target, gradient = place(context, builder, DX, DX_, dx_), place(context, builder, D, D_, d_)
        dweight, dbias = place(context, builder, DW, DW_, dw_), place(context, builder, DB, DB_, db_)
        source, residual = place(context, builder, X, X_, x_), place(context, builder, RES, RES_, res_)
        weight = place(context, builder, W, W_, ir.Constant(I64, 0))
        center, scale = lanes.splat(mean_), lanes.splat(rstd_)
        mean_1, mean_2 = lanes.splat(mean_dnorm_), lanes.splat(mean_dnorm_norm_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (lanes.load(builder.gep(source, [offset]), mask) - center) * scale
            dout = lanes.load(builder.gep(gradient, [offset]), mask)
            dnorm = dout * lanes.load(builder.gep(weight, [offset]), mask)
            result = (dnorm - lanes.fma(norm, mean_2, mean_1)) * scale
            result = lanes.add_if(use_res_, result, lambda: lanes.load(builder.gep(residual, [offset]), mask))
            dw_at, db_at = builder.gep(dweight, [offset]), builder.gep(dbias, [offset])
            dw_sum, db_sum = lanes.fma(dout, norm, lanes.load(dw_at, mask)), lanes.load(db_at, mask) + dout
            lanes.store(result, builder.gep(target, [offset]), mask)
            lanes.store(dw_sum, dw_at, mask)
            lanes.store(db_sum, db_at, mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n, real = types.int64, X.dtype
    return types.void(
        DX, n, DW, n, DB, n, D, n, X, n, n, real, real, W, real, real, RES, n, types.boolean
    ), codegen
