"""Layer normalisation of a row, or of a few, so that what one waits for, a sum or a root, others fill."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .passes import vector_loop
from .vector import I64, Lanes, Vec
from .views import place

CHAINS = 4  # in a sum, however many rows there are: so a row's result does not depend on its company


def make_normalize(most: int) -> Any:
    """The intrinsic that normalises `rows` <= `most` rows.

    normalize(OUT, out,  MEAN, mean,  RSTD, rstd,  X, x,  rows, n,  W, w,  B, b, use_b,  eps)

    For r < rows, i < n:  MEAN[mean + r] = sum_i X[x + r n + i] / n
                          RSTD[rstd + r] = 1 / sqrt(sum_i (X[x + r n + i] - MEAN[mean + r])^2 / n + eps)
                          OUT[out + r n + i] = (X[x + r n + i] - MEAN[mean + r]) * RSTD[rstd + r] * W[w + i]
                                               + B[b + i] if use_b
    OUT may be X. Each row is read and written as a whole: of rows side by side the CPU would not guess what to fetch.
    """

    @intrinsic
    def normalize(typingctx, OUT, out, MEAN, mean, RSTD, rstd, X, x, rows, n, W, w, B, b, use_b, eps):
        def codegen(context, builder, signature, arguments):
            OUT_, out_, MEAN_, mean_, RSTD_, rstd_, X_, x_, rows_, n_, W_, w_, B_, b_, use_b_, eps_ = arguments
            lanes, numbers = Lanes(builder, X.dtype), [ir.Constant(I64, r) for r in range(most)]
            there = [builder.icmp_signed("<", number, rows_) for number in numbers]
            lengths = [builder.select(is_there, n_, numbers[0]) for is_there in there]
            starts = [builder.mul(number, n_) for number in numbers]
            source, target = place(context, builder, X, X_, x_), place(context, builder, OUT, OUT_, out_)
            sources, targets = ([builder.gep(base, [start]) for start in starts] for base in (source, target))
            weight, bias = place(context, builder, W, W_, w_), place(context, builder, B, B_, b_)
            count, one = builder.sitofp(n_, lanes.element), ir.Constant(lanes.element, 1.0)

            def average(total: Vec) -> ir.Value:
                return builder.fdiv(lanes.reduce(total, operator.add), count)

            sums = [_sum(lanes, *row) for row in zip(sources, lengths, strict=True)]
            means = [average(total) for total in sums]
            centers = [lanes.splat(value) for value in means]
            sums = [_squares(lanes, *row) for row in zip(sources, lengths, centers, strict=True)]
            rstds = [builder.fdiv(one, lanes.scalar_sqrt(builder.fadd(average(total), eps_))) for total in sums]
            mean_at, rstd_at = place(context, builder, MEAN, MEAN_, mean_), place(context, builder, RSTD, RSTD_, rstd_)
            for r in range(most):
                with builder.if_then(there[r]):
                    builder.store(means[r], builder.gep(mean_at, [numbers[r]]))
                    builder.store(rstds[r], builder.gep(rstd_at, [numbers[r]]))
                scale = lanes.splat(rstds[r])
                _normalize(
                    lanes, targets[r], sources[r], lengths[r], centers[r], scale, weight, bias, lanes.splat(use_b_)
                )
            return context.get_dummy_value()

        n, real = types.int64, X.dtype
        return types.void(OUT, n, MEAN, n, RSTD, n, X, n, n, n, W, n, B, n, types.boolean, real), codegen

    return normalize


def _sum(lanes: Lanes, row: ir.Value, n: ir.Value) -> Vec:
    """The sum of a row, still spread over the lanes."""

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        return [carried[0] + lanes.load(lanes.builder.gep(row, [offset]), mask)]

    return vector_loop(lanes, n, [lanes.vec(0.0)], body, CHAINS)[0]


def _squares(lanes: Lanes, row: ir.Value, n: ir.Value, center: Vec) -> Vec:
    """The sum of squares of a row's distances from `center`, still spread over the lanes."""

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        distance = lanes.load(lanes.builder.gep(row, [offset]), mask, center) - center
        return [lanes.fma(distance, distance, carried[0])]

    return vector_loop(lanes, n, [lanes.vec(0.0)], body, CHAINS)[0]


def _normalize(
    lanes: Lanes, target: ir.Value, row: ir.Value, n: ir.Value, center: Vec, scale: Vec,
    weight: ir.Value, bias: ir.Value, use_bias: Vec,
) -> None:  # fmt: skip
    b = lanes.builder

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        norm = (lanes.load(b.gep(row, [offset]), mask) - center) * scale
        shift = lanes.load(b.gep(bias, [offset]), mask).where(use_bias, 0.0)
        result = lanes.fma(norm, lanes.load(b.gep(weight, [offset]), mask), shift)
        lanes.store(result, b.gep(target, [offset]), mask)
        return []

    vector_loop(lanes, n, [], body)


normalize_four, normalize_one = make_normalize(4), make_normalize(1)
