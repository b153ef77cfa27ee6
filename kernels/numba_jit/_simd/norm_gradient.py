"""The two passes over a row that layer normalisation's backward consists of."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .passes import operands, vector_loop
from .vector import Vec


@intrinsic
def norm_weight_gradient(typingctx, dweight, dbias, dout, inp, weight, statistics):
    """dweight[i] += dout[i] * norm[i];  dbias[i] += dout[i],  with norm[i] = (inp[i] - mean) * rstd

    `statistics` are (mean, rstd). Returns the sums of dnorm[i] = dout[i] * weight[i] and of dnorm[i] * norm[i].
    """

    def codegen(context, builder, signature, arguments):
        dw, db, gradient, source, gain, statistics_ = operands(context, builder, signature, arguments)
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
    return pair(dweight, dbias, dout, inp, weight, pair), codegen


@intrinsic
def norm_input_gradient(typingctx, dinp, dout, inp, weight, dresidual, statistics, means):
    """dinp[i] = (dnorm[i] - shift - norm[i] * scale) * rstd + dresidual[i],  norm and dnorm as above

    `statistics` are (mean, rstd), and `means` (shift, scale) the means of dnorm and dnorm * norm over the row.
    `dresidual` may be empty; then nothing is added.
    """

    def codegen(context, builder, signature, arguments):
        target, gradient, source, gain, residual, statistics_, means_ = operands(
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
    return types.void(dinp, dout, inp, weight, dresidual, pair, pair), codegen
