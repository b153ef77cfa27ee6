"""Right operands of a product, packed into panels: [panel][k][NR columns].

The loop over k of a register tile then reads one stream of whole vectors, whatever the operand's layout was. What lies
beyond the last column of a panel means nothing: columns of a product do not mix, and those are never stored.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...memory import CACHE_LINE
from .._jit import device
from .spans import place, span_loop
from .tiles import lanes_of
from .vector import I64, Lanes, Vec


@device
def pack_panel(panels, start, NR, B, b, b_k, b_column, K, columns):
    """panels[start + k NR + j] = B[b + k b_k + j b_column] for k < K and j < columns; b_k or b_column is 1"""
    if b_column == 1:
        for k in range(K):
            copy_span(panels, start + k * NR, B, b + k * b_k, columns)
    else:
        side = lanes_of(B)
        for j in range(0, columns, side):
            for k in range(0, K, side):
                transpose_square(
                    panels, start + k * NR + j, NR, B, b + k + j * b_column, b_column,
                    min(side, columns - j), min(side, K - k),
                )  # fmt: skip


@intrinsic
def prefetch_span(typingctx, X, x, n):
    """Have X[x : x + n], which need not exist, brought to the second cache"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        source, line = place(context, builder, X, arguments[0], arguments[1]), CACHE_LINE // lanes.itemsize
        zero, step = ir.Constant(I64, 0), ir.Constant(I64, line)
        with cgutils.for_range_slice(builder, zero, arguments[2], step, I64) as (i, _):
            lanes.prefetch(builder.gep(source, [i]))
        return context.get_dummy_value()

    return types.void(X, types.int64, types.int64), codegen


@intrinsic
def copy_span(typingctx, OUT, out, X, x, n):
    """OUT[out + i] = X[x + i] for i < n, and 0 in the rest of the last vector"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        target = place(context, builder, OUT, arguments[0], arguments[1])
        source = place(context, builder, X, arguments[2], arguments[3])

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            lanes.store(lanes.load(builder.gep(source, [offset]), mask), builder.gep(target, [offset]))
            return []

        span_loop(lanes, arguments[4], [], body)
        return context.get_dummy_value()

    return types.void(OUT, types.int64, X, types.int64, types.int64), codegen


@intrinsic
def transpose_square(typingctx, OUT, out, out_row, X, x, x_row, rows, columns):
    """OUT[out + j out_row + i] = X[x + i x_row + j] for i < rows and j < columns, both at most one vector's lanes; 0 or
    a repetition for i up to the lanes."""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, out_row_, X_, x_, x_row_, rows_, columns_ = arguments
        lanes = Lanes(builder, X.dtype)
        target, source = place(context, builder, OUT, OUT_, out_), place(context, builder, X, X_, x_)
        count = ir.Constant(I64, lanes.count)
        full = builder.icmp_signed("==", columns_, count)
        last = builder.sub(rows_, ir.Constant(I64, 1))

        def rows_of(mask: Vec | None) -> list[Vec]:
            values = []
            for i in range(lanes.count):
                index = ir.Constant(I64, i)
                index = builder.select(builder.icmp_signed("<", index, last), index, last)
                values.append(lanes.load(builder.gep(source, [builder.mul(index, x_row_)]), mask))
            return lanes.transpose(values)

        with builder.if_else(full) as (then, otherwise):
            with then:
                for j, value in enumerate(rows_of(None)):
                    lanes.store(value, builder.gep(target, [builder.mul(out_row_, ir.Constant(I64, j))]))
            with otherwise:
                for j, value in enumerate(rows_of(lanes.mask_below(columns_))):
                    with builder.if_then(builder.icmp_signed("<", ir.Constant(I64, j), columns_)):
                        lanes.store(value, builder.gep(target, [builder.mul(out_row_, ir.Constant(I64, j))]))
        return context.get_dummy_value()

    n = types.int64
    return types.void(OUT, n, n, X, n, n, n, n), codegen


@intrinsic
def column_sums(typingctx, OUT, out, X, x, x_row, rows, columns):
    """OUT[out + j] += sum of X[x + i x_row + j] over i < rows, in this order, for j < columns: at most four vectors"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, X_, x_, x_row_, rows_, columns_ = arguments
        lanes = Lanes(builder, X.dtype)
        target, source = place(context, builder, OUT, OUT_, out_), place(context, builder, X, X_, x_)
        offsets = [ir.Constant(I64, v * lanes.count) for v in range(4)]
        full = builder.icmp_signed("==", columns_, ir.Constant(I64, 4 * lanes.count))

        def add_rows(masks: list[Vec] | list[None]) -> None:
            zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
            entry, loop, done = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            i, sums = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in offsets]
            i.add_incoming(zero, entry)
            row = builder.gep(source, [builder.mul(i, x_row_)])
            i_next = builder.add(i, one)
            i.add_incoming(i_next, loop)
            totals = []
            for total, offset, mask in zip(sums, offsets, masks, strict=True):
                total.value.add_incoming(lanes.vec(0.0).value, entry)
                totals.append(total + lanes.load(builder.gep(row, [offset]), mask))
                total.value.add_incoming(totals[-1].value, loop)
            builder.cbranch(builder.icmp_signed("<", i_next, rows_), loop, done)
            builder.position_at_end(done)
            for total, offset, mask in zip(totals, offsets, masks, strict=True):
                place_ = builder.gep(target, [offset])
                lanes.store(lanes.load(place_, mask) + total, place_, mask)

        with builder.if_else(full) as (then, otherwise):
            with then:
                add_rows([None] * 4)
            with otherwise:
                add_rows([lanes.mask_below(builder.sub(columns_, offset)) for offset in offsets])
        return context.get_dummy_value()

    n = types.int64
    return types.void(OUT, n, X, n, n, n, n), codegen
