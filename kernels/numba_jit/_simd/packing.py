"""Packing of the right operand of a product into panels: [panel][k][columns of a panel].

The loop over k in a register tile then reads one stream of whole vectors, whatever the operand's layout. The columns of
a panel beyond the operand's last are never used: columns of a product do not mix, and those are not stored.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...memory import CACHE_LINE
from .._runtime.jit import device
from .passes import vector_loop
from .tiles import lanes_of
from .vector import I64, Lanes, Vec
from .views import panel, struct
from .word_rows import round_across, round_square
from .words import PAIR, by_operand

AHEAD = 8  # rows are prefetched so many rows before they are packed


@device
def _pack_exact(packed, X):
    if X.column == 1:
        _pack_rows(packed, X)
    else:
        _pack_columns(packed, X)


@device
def _pack_rows(packed, X):
    """Row by row: memory is read and written in order."""
    for k in range(X.rows):
        if packed.columns > packed.width:  # several streams at once: the CPU does not predict the next row
            prefetch(X[k + AHEAD])
        for j in range(0, X.columns, packed.width):
            copy_row(panel(packed, j)[k], X[k][j : j + packed.width])


@device
def _pack_columns(packed, X):
    """Square by square, transposed in registers."""
    side = lanes_of(X)
    for first in range(0, X.columns, packed.width):
        target, source = panel(packed, first), X[:, first : first + packed.width]
        for j in range(0, source.columns, side):
            for k in range(0, source.rows, side):
                copy_square(target[k : k + side, j : j + side], source[k : k + side, j : j + side])


@device
def _pack_words(packed, X):
    if X.column == 1:
        for k in range(packed.rows):
            rows = X[k * PAIR : k * PAIR + PAIR]
            if packed.columns > packed.width:
                for i in range(PAIR):
                    prefetch(X[k * PAIR + AHEAD + i])
            for j in range(0, X.columns, packed.width):
                round_across(panel(packed, j)[k], rows[:, j : j + packed.width])
        return
    side = lanes_of(X)
    for first in range(0, X.columns, packed.width):
        target, source = panel(packed, first), X[:, first : first + packed.width]
        for j in range(0, source.columns, side):
            for k in range(0, target.rows, side):
                square = source[k * PAIR : (k + side) * PAIR, j : j + side]
                round_square(target[k : k + side, j : j + side], square)


# pack(packed, X): pack a matrix into panels of its shape, exact or of words. Its rows or columns must be contiguous.
pack = by_operand(_pack_exact, _pack_words)


@intrinsic
def prefetch(typingctx, row):
    """Fetch a row, which need not exist, into the second-level cache."""

    def codegen(context, builder, signature, arguments):
        lanes, source = Lanes(builder, row.dtype), struct(context, builder, row, arguments[0])
        zero, line = ir.Constant(I64, 0), ir.Constant(I64, CACHE_LINE // lanes.itemsize)
        with cgutils.for_range_slice(builder, zero, source.size, line, I64) as (i, _):
            lanes.prefetch(builder.gep(source.data, [i]))
        return context.get_dummy_value()

    return types.void(row), codegen


@intrinsic
def copy_row(typingctx, target, source):
    """Copy a row and fill up the last vector with zeros."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, row = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            lanes.store(lanes.load(builder.gep(row.data, [offset]), mask), builder.gep(to.data, [offset]))
            return []

        vector_loop(lanes, row.size, [], body)
        return context.get_dummy_value()

    return types.void(target, source), codegen


@intrinsic
def copy_square(typingctx, target, source):
    """Copy a matrix of at most as many rows and columns as a vector has lanes, from column-major to row-major.

    Each row is written as a whole vector, which repeats the last column where there are fewer.
    """

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, square = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        length, across = square.rows, square.column
        last = builder.sub(square.columns, ir.Constant(I64, 1))

        def transposed(mask: Vec | None) -> list[Vec]:
            values = []
            for j in range(lanes.count):
                index = ir.Constant(I64, j)
                index = builder.select(builder.icmp_signed("<", index, last), index, last)
                values.append(lanes.load(builder.gep(square.data, [builder.mul(index, across)]), mask))
            return lanes.transpose(values)

        def row(i: int) -> ir.Value:
            return builder.gep(to.data, [builder.mul(to.row, ir.Constant(I64, i))])

        with builder.if_else(builder.icmp_signed("==", length, ir.Constant(I64, lanes.count))) as (full, partial):
            with full:
                for i, value in enumerate(transposed(None)):
                    lanes.store(value, row(i))
            with partial:
                for i, value in enumerate(transposed(lanes.mask_below(length))):
                    with builder.if_then(builder.icmp_signed("<", ir.Constant(I64, i), length)):
                        lanes.store(value, row(i))
        return context.get_dummy_value()

    return types.void(target, source), codegen


@intrinsic
def add_column_sums(typingctx, row, X):
    """row += the sum of X's rows, in order; for at most four vectors of columns"""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, X.dtype)
        to, m = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        target, source, step, rows, columns = to.data, m.data, m.row, m.rows, m.columns
        offsets = [ir.Constant(I64, v * lanes.count) for v in range(4)]
        full = builder.icmp_signed("==", columns, ir.Constant(I64, 4 * lanes.count))

        def add_rows(masks: list[Vec] | list[None]) -> None:
            zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
            entry, loop, done = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            i, sums = builder.phi(I64), [Vec(lanes, builder.phi(lanes.type)) for _ in offsets]
            i.add_incoming(zero, entry)
            now = builder.gep(source, [builder.mul(i, step)])
            i_next = builder.add(i, one)
            i.add_incoming(i_next, loop)
            totals = []
            for total, offset, mask in zip(sums, offsets, masks, strict=True):
                total.value.add_incoming(lanes.vec(0.0).value, entry)
                totals.append(total + lanes.load(builder.gep(now, [offset]), mask))
                total.value.add_incoming(totals[-1].value, loop)
            builder.cbranch(builder.icmp_signed("<", i_next, rows), loop, done)
            builder.position_at_end(done)
            for total, offset, mask in zip(totals, offsets, masks, strict=True):
                place = builder.gep(target, [offset])
                lanes.store(lanes.load(place, mask) + total, place, mask)

        with builder.if_else(full) as (then, otherwise):
            with then:
                add_rows([None] * 4)
            with otherwise:
                add_rows([lanes.mask_below(builder.sub(columns, offset)) for offset in offsets])
        return context.get_dummy_value()

    return types.void(row, X), codegen


@device
def _sums_of_panels(packed, sums, X):
    for j in range(0, packed.columns, packed.width):
        add_column_sums(sums[j : j + packed.width], panel(packed, j))


@device
def _sums_of_matrix(packed, sums, X):
    for j in range(0, X.columns, packed.width):
        add_column_sums(sums[j : j + packed.width], X[:, j : j + packed.width])


# add_sums(packed, sums, X): sums += the sum of X's rows, in order, where `packed` holds X. The packed numbers are read,
# which are in the cache, unless they are rounded.
add_sums = by_operand(_sums_of_panels, _sums_of_matrix)
