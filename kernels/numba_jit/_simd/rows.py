"""A single row times a matrix, for generation: every weight is used once, so packing would cost more than it gives."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .spans import place
from .vector import I64, Lanes, Vec

ROW_VECTORS = 8  # accumulators: enough to hide the latency of a multiply-add


@intrinsic
def row_product(typingctx, OUT, out, X, x, W, w, w_row, K, columns):
    """OUT[out + j] = sum of X[x + k] * W[w + k w_row + j] over k < K, in this order, for j < columns: at most
    ROW_VECTORS vectors"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, X_, x_, W_, w_, w_row_, K_, columns_ = arguments
        lanes = Lanes(builder, X.dtype)
        target, row = place(context, builder, OUT, OUT_, out_), place(context, builder, X, X_, x_)
        matrix = place(context, builder, W, W_, w_)
        offsets = [ir.Constant(I64, v * lanes.count) for v in range(ROW_VECTORS)]
        full = builder.icmp_signed("==", columns_, ir.Constant(I64, ROW_VECTORS * lanes.count))

        def multiply(masks: list[Vec] | list[None]) -> None:
            entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
            builder.branch(loop)
            builder.position_at_end(loop)
            k, sums = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in offsets]
            k.add_incoming(ir.Constant(I64, 0), entry)
            element = lanes.broadcast(builder.gep(row, [k]))
            weights = builder.gep(matrix, [builder.mul(k, w_row_)])
            k_next = builder.add(k, ir.Constant(I64, 1))
            k.add_incoming(k_next, loop)
            totals = []
            for total, offset, mask in zip(sums, offsets, masks, strict=True):
                total.value.add_incoming(lanes.vec(0.0).value, entry)
                totals.append(lanes.fma(element, lanes.load(builder.gep(weights, [offset]), mask), total))
                total.value.add_incoming(totals[-1].value, loop)
            builder.cbranch(builder.icmp_signed("<", k_next, K_), loop, done)
            builder.position_at_end(done)
            for total, offset, mask in zip(totals, offsets, masks, strict=True):
                lanes.store(total, builder.gep(target, [offset]), mask)

        with builder.if_else(full) as (then, otherwise):
            with then:
                multiply([None] * ROW_VECTORS)
            with otherwise:
                multiply([lanes.mask_below(builder.sub(columns_, offset)) for offset in offsets])
        return context.get_dummy_value()

    n = types.int64
    return types.void(OUT, n, X, n, W, n, n, n, n), codegen
