"""The passes over a row that layer normalization consists of."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import Operand, operands, vector_loop
from .vector import I64, Lanes, Vec
from .views import Row, struct

CHAINS = 4  # of a sum; the same for one row and for four, so that both give the same bits


@intrinsic
def normalize_row(typingctx, out, inp, weight, bias, eps):
    """out[c] = (inp[c] - mean) * rstd * weight[c] + bias[c];  returns (mean, rstd)

    mean = sum_c inp[c] / C;  rstd = 1 / sqrt(sum_c (inp[c] - mean)^2 / C + eps)

    `out` may be `inp`. `bias` may be empty; then nothing is added.
    """

    def codegen(context, builder, signature, arguments):
        target, source, gain, shift, eps_ = operands(context, builder, signature, arguments)
        (mean,), (rstd,) = _normalize([target], [source], gain, shift, eps_)
        return context.make_tuple(builder, signature.return_type, (mean, rstd))

    return types.UniTuple(inp.dtype, 2)(out, inp, weight, bias, inp.dtype), codegen


@intrinsic
def normalize_four(typingctx, out, mean, rstd, inp, weight, bias, eps):
    """mean[n], rstd[n] = normalize_row(out[n], inp[n], weight, bias, eps) for the first four rows, with the same bits

    While the sum or the root of one row is awaited, the CPU works on the others.
    """

    def codegen(context, builder, signature, arguments):
        _, means, rstds, _, gain, shift, eps_ = operands(context, builder, signature, arguments)
        targets, sources = (_first_rows(context, builder, *pair) for pair in ((out, arguments[0]), (inp, arguments[3])))
        for r, (mean_, rstd_) in enumerate(zip(*_normalize(targets, sources, gain, shift, eps_), strict=True)):
            builder.store(mean_, builder.gep(means.data, [ir.Constant(I64, r)]))
            builder.store(rstd_, builder.gep(rstds.data, [ir.Constant(I64, r)]))
        return context.get_dummy_value()

    return types.void(out, mean, rstd, inp, weight, bias, inp.dtype), codegen


def _first_rows(context: Any, builder: ir.IRBuilder, kind: Any, value: ir.Value) -> list[Operand]:
    """The first four rows of a matrix."""
    matrix, rows = struct(context, builder, kind, value), []
    for r in range(4):
        row = struct(context, builder, Row(kind.dtype))
        row.data = builder.gep(matrix.data, [builder.mul(matrix.row, ir.Constant(I64, r))])
        row.size = matrix.columns
        rows.append(Operand(Lanes(builder, kind.dtype), row))
    return rows


def _normalize(
    out: list[Operand], inp: list[Operand], weight: Operand, bias: Operand, eps: ir.Value
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Normalize some rows, pass by pass; return the means and the rstds."""
    lanes = weight.lanes
    builder, one = lanes.builder, ir.Constant(lanes.element, 1.0)
    count = builder.sitofp(weight.size, lanes.element)
    use_bias = lanes.splat(bias.exists)
    bias.data = builder.select(bias.exists, bias.data, weight.data)  # any valid address: the values are not used

    def mean_of(total: Vec) -> ir.Value:
        return builder.fdiv(lanes.reduce(total, operator.add), count)

    def inverse_root(variance: ir.Value) -> ir.Value:
        return builder.fdiv(one, lanes.scalar_sqrt(builder.fadd(variance, eps)))

    totals = [_sum(x) for x in inp]
    means = [mean_of(total) for total in totals]
    totals = [_squares(x, lanes.splat(mean)) for x, mean in zip(inp, means, strict=True)]
    rstds = [inverse_root(mean_of(total)) for total in totals]
    for y, x, mean, rstd in zip(out, inp, means, rstds, strict=True):
        _scale_and_shift(y, x, lanes.splat(mean), lanes.splat(rstd), weight, bias, use_bias)
    return means, rstds


def _sum(x: Operand) -> Vec:
    """The sum of a row, still spread over the lanes."""

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        return [carried[0] + x.load(offset, mask)]

    return vector_loop(x.lanes, x.size, [x.lanes.vec(0.0)], body, CHAINS)[0]


def _squares(x: Operand, mean: Vec) -> Vec:
    """The sum of (x - mean)^2 over a row, still spread over the lanes."""

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        centered = x.load(offset, mask, mean) - mean
        return [x.lanes.fma(centered, centered, carried[0])]

    return vector_loop(x.lanes, x.size, [x.lanes.vec(0.0)], body, CHAINS)[0]


def _scale_and_shift(
    out: Operand, inp: Operand, mean: Vec, rstd: Vec, weight: Operand, bias: Operand, use_bias: Vec
) -> None:
    """out = (inp - mean) * rstd * weight + bias, for a row"""
    lanes = inp.lanes

    def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
        norm = (inp.load(offset, mask) - mean) * rstd
        shift = bias.load(offset, mask).where(use_bias, 0.0)
        out.store(lanes.fma(norm, weight.load(offset, mask), shift), offset, mask)
        return []

    vector_loop(lanes, out.size, [], body)


@intrinsic
def norm_weight_gradient(typingctx, dweight, dbias, dout, inp, statistics, weight):
    """dweight[i] += dout[i] * norm[i];  dbias[i] += dout[i],  with norm[i] = (inp[i] - mean) * rstd

    `statistics` are (mean, rstd). Returns the sums of dnorm[i] = dout[i] * weight[i] and of dnorm[i] * norm[i].
    """

    def codegen(context, builder, signature, arguments):
        dw, db, gradient, source, statistics_, gain = operands(context, builder, signature, arguments)
        lanes = dw.lanes
        mean, rstd = map(lanes.splat, cgutils.unpack_tuple(builder, statistics_))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (source.load(offset, mask, mean) - mean) * rstd
            dy = gradient.load(offset, mask)
            dw.store(lanes.fma(dy, norm, dw.load(offset, mask)), offset, mask)
            db.store(db.load(offset, mask) + dy, offset, mask)
            dnorm = dy * gain.load(offset, mask)
            return [carried[0] + dnorm, lanes.fma(dnorm, norm, carried[1])]

        totals = vector_loop(lanes, dw.size, [lanes.vec(0.0), lanes.vec(0.0)], body, 2)
        return context.make_tuple(builder, signature.return_type, [lanes.reduce(t, operator.add) for t in totals])

    pair = types.UniTuple(inp.dtype, 2)
    return pair(dweight, dbias, dout, inp, pair, weight), codegen


@intrinsic
def norm_input_gradient(typingctx, dinp, dout, inp, statistics, weight, means, dresidual):
    """dinp[i] = (dnorm[i] - shift - norm[i] * scale) * rstd + dresidual[i],  norm and dnorm as above

    `statistics` are (mean, rstd), and `means` (shift, scale) the means of dnorm and dnorm * norm over the row.
    `dinp` may be `dout` or `dresidual`. `dresidual` may be empty; then nothing is added.
    """

    def codegen(context, builder, signature, arguments):
        target, gradient, source, statistics_, gain, means_, residual = operands(
            context, builder, signature, arguments
        )
        lanes = target.lanes
        mean, rstd = map(lanes.splat, cgutils.unpack_tuple(builder, statistics_))
        shift, scale = map(lanes.splat, cgutils.unpack_tuple(builder, means_))
        use_residual = residual.exists

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            norm = (source.load(offset, mask) - mean) * rstd
            dnorm = gradient.load(offset, mask) * gain.load(offset, mask)
            result = (dnorm - lanes.fma(norm, scale, shift)) * rstd
            target.store(lanes.add_if(use_residual, result, lambda: residual.load(offset, mask)), offset, mask)
            return []

        vector_loop(lanes, target.size, [], body)
        return context.get_dummy_value()

    pair = types.UniTuple(inp.dtype, 2)
    return types.void(dinp, dout, inp, pair, weight, pair, dresidual), codegen
