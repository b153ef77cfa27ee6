"""The pieces of layer normalisation and of its gradient over one row, and products of two rows."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place, span_loop
from .vector import I64, Lanes, Vec


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
def norm_weight_gradient_span(typingctx, DW, dw, DB, db, D, d, X, x, n, mean, rstd, W):
    """With norm = (X[x + i] - mean) * rstd, for i < n: DW[dw + i] += D[d + i] * norm;  DB[db + i] += D[d + i]

    Returns the sums of dnorm = D[d + i] * W[i] and of dnorm * norm.
    """

    def codegen(context, builder, signature, arguments):
        DW_, dw_, DB_, db_, D_, d_, X_, x_, n_, mean_, rstd_, W_ = arguments
        lanes = Lanes(builder, X.dtype)
        dweight, dbias = place(context, builder, DW, DW_, dw_), place(context, builder, DB, DB_, db_)
        gradient, source = place(context, builder, D, D_, d_), place(context, builder, X, X_, x_)
        weight = place(context, builder, W, W_, ir.Constant(I64, 0))
        center, scale = lanes.splat(mean_), lanes.splat(rstd_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (lanes.load(builder.gep(source, [offset]), mask, center) - center) * scale
            dout = lanes.load(builder.gep(gradient, [offset]), mask)
            dw_at, db_at = builder.gep(dweight, [offset]), builder.gep(dbias, [offset])
            lanes.store(lanes.fma(dout, norm, lanes.load(dw_at, mask)), dw_at, mask)
            lanes.store(lanes.load(db_at, mask) + dout, db_at, mask)
            dnorm = dout * lanes.load(builder.gep(weight, [offset]), mask)
            return [carried[0] + dnorm, lanes.fma(dnorm, norm, carried[1])]

        totals = span_loop(lanes, n_, [lanes.vec(0.0), lanes.vec(0.0)], body, 2)
        return context.make_tuple(builder, signature.return_type, [lanes.reduce(t, operator.add) for t in totals])

    n64, real = types.int64, X.dtype
    return types.UniTuple(real, 2)(DW, n64, DB, n64, D, n64, X, n64, n64, real, real, W), codegen


@intrinsic
def norm_gradient_span(
    typingctx, DX, dx, D, d, X, x, n, mean, rstd, W, mean_dnorm, mean_dnorm_norm, RES, res, use_res
):
    """DX[dx + i] = (dnorm - mean_dnorm - norm * mean_dnorm_norm) * rstd + RES[res + i] if use_res, for i < n, with norm
    and dnorm as in `norm_weight_gradient_span`"""

    def codegen(context, builder, signature, arguments):
        (DX_, dx_, D_, d_, X_, x_, n_, mean_, rstd_, W_, mean_dnorm_, mean_dnorm_norm_,
         RES_, res_, use_res_) = arguments  # fmt: skip
        lanes = Lanes(builder, X.dtype)
        target, gradient = place(context, builder, DX, DX_, dx_), place(context, builder, D, D_, d_)
        source, residual = place(context, builder, X, X_, x_), place(context, builder, RES, RES_, res_)
        weight = place(context, builder, W, W_, ir.Constant(I64, 0))
        center, scale = lanes.splat(mean_), lanes.splat(rstd_)
        mean_1, mean_2 = lanes.splat(mean_dnorm_), lanes.splat(mean_dnorm_norm_)

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (lanes.load(builder.gep(source, [offset]), mask) - center) * scale
            dnorm = lanes.load(builder.gep(gradient, [offset]), mask) * lanes.load(builder.gep(weight, [offset]), mask)
            result = (dnorm - lanes.fma(norm, mean_2, mean_1)) * scale
            result = lanes.add_if(use_res_, result, lambda: lanes.load(builder.gep(residual, [offset]), mask))
            lanes.store(result, builder.gep(target, [offset]), mask)
            return []

        span_loop(lanes, n_, [], body)
        return context.get_dummy_value()

    n, real = types.int64, X.dtype
    return types.void(DX, n, D, n, X, n, n, real, real, W, real, real, RES, n, types.boolean), codegen
