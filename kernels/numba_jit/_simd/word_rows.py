"""Rows, squares and left operands of words: bfloat16 as the tiles read it; see `words`."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .._runtime.jit import device, inlined
from .passes import operands, vector_loop
from .vector import I64, Lanes, Vec
from .views import causal, matrix, struct
from .words import LANES, PAIR, WORD, by_operand, rounded_vector, words, words_of

BEYOND = 16  # elements beyond the diagonal of a causal matrix that tiles may read: more than their rows


@intrinsic
def round_for(typingctx, row, other):
    """Round a row in place, to be multiplied with `other`, if that holds bfloat16 as uint16; else nothing happens."""

    def codegen(context, builder, signature, arguments):
        if other.dtype == types.uint16:
            (target,) = operands(context, builder, types.void(row), arguments[:1])

            def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
                target.store(rounded_vector(target.lanes, target.load(offset, mask)), offset, mask)
                return []

            vector_loop(target.lanes, target.size, [], body)
        return context.get_dummy_value()

    return types.void(row, other), codegen


@intrinsic
def keep(typingctx, target, source):
    """Copy a row, into one of the same dtype or, rounded, into one of bfloat16 as uint16."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, row = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))

        def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
            value, at = lanes.load(builder.gep(row.data, [offset]), mask), builder.gep(to.data, [offset])
            if target.dtype == types.uint16:
                lanes.store_halves(rounded_vector(lanes, value), at, mask)
            else:
                lanes.store(value, at, mask)
            return []

        vector_loop(lanes, row.size, [], body)
        return context.get_dummy_value()

    return types.void(target, source), codegen


@intrinsic
def round_along(typingctx, target, source):
    """The words of a row, whose sum runs along it. Whole vectors of words are written."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, row = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        target_data, source_data, size = to.data, row.data, row.size
        step, zero = ir.Constant(I64, PAIR * LANES), ir.Constant(I64, 0)
        whole = builder.sub(size, builder.srem(size, step))

        def convert(at: ir.Value, masked: bool) -> None:
            parts = []
            for part in range(PAIR):
                start = builder.add(at, ir.Constant(I64, part * LANES))
                mask = lanes.mask_below(builder.sub(size, start)) if masked else None
                parts.append(lanes.load(builder.gep(source_data, [start]), mask))
            place = builder.gep(target_data, [builder.sdiv(at, ir.Constant(I64, PAIR))])
            lanes.store(words_of(lanes, parts, False), place)

        with cgutils.for_range_slice(builder, zero, whole, step, I64) as (at, _):
            convert(at, False)
        with builder.if_then(builder.icmp_signed("<", whole, size)):
            convert(whole, True)
        return context.get_dummy_value()

    return types.void(target, source), codegen


@intrinsic
def round_across(typingctx, target, source):
    """The words of at most PAIR rows, whose sum runs from one to the next. Whole vectors of words are written."""

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, m = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        target_data, columns = to.data, m.columns
        rows = [m.data, builder.gep(m.data, [m.row])][:PAIR]

        def convert(count: int) -> None:
            def body(offset: ir.Value, mask: Vec | None, carried: list[Vec]) -> list[Vec]:
                parts = [lanes.load(builder.gep(row, [offset]), mask) for row in rows[:count]]
                parts += [lanes.vec(0.0)] * (PAIR - count)
                lanes.store(words_of(lanes, parts, True), builder.gep(target_data, [offset]))
                return []

            vector_loop(lanes, columns, [], body)

        if PAIR == 1:
            convert(1)
        else:
            with builder.if_else(builder.icmp_signed("==", m.rows, ir.Constant(I64, PAIR))) as (both, one):
                with both:
                    convert(PAIR)
                with one:
                    convert(1)
        return context.get_dummy_value()

    return types.void(target, source), codegen


@intrinsic
def round_square(typingctx, target, source):
    """The words of a matrix whose sum runs along its columns, which are contiguous, into rows of words.

    It has at most as many columns as a vector has lanes, and the words of as many rows. Whole vectors are written.
    """

    def codegen(context, builder, signature, arguments):
        lanes = Lanes(builder, source.dtype)
        to, square = (struct(context, builder, *pair) for pair in zip(signature.args, arguments, strict=True))
        target_data, target_row, target_rows = to.data, to.row, to.rows
        data, length, across = square.data, square.rows, square.column
        last = builder.sub(square.columns, ir.Constant(I64, 1))

        def transposed(masked: bool) -> list[Vec]:
            values = []
            for j in range(LANES):
                index = ir.Constant(I64, j)
                index = builder.select(builder.icmp_signed("<", index, last), index, last)
                column = builder.gep(data, [builder.mul(index, across)])
                parts = []
                for part in range(PAIR):
                    start = ir.Constant(I64, part * LANES)
                    mask = lanes.mask_below(builder.sub(length, start)) if masked else None
                    parts.append(lanes.load(builder.gep(column, [start]), mask))
                values.append(words_of(lanes, parts, False))
            return lanes.transpose(values)

        def row(i: int) -> ir.Value:
            return builder.gep(target_data, [builder.mul(target_row, ir.Constant(I64, i))])

        full = builder.icmp_signed("==", length, ir.Constant(I64, PAIR * LANES))
        with builder.if_else(full) as (then, otherwise):
            with then:
                for i, value in enumerate(transposed(False)):
                    lanes.store(value, row(i))
            with otherwise:
                for i, value in enumerate(transposed(True)):
                    with builder.if_then(builder.icmp_signed("<", ir.Constant(I64, i), target_rows)):
                        lanes.store(value, row(i))
        return context.get_dummy_value()

    return types.void(target, source), codegen


# ------------------------------------------------------------------------------------------------------ left operands


def _row_words(numbers: int) -> int:
    """How far apart rows of so many numbers are, in words: an odd number of vectors, so that the rows of a tile do not
    compete for the same places of the cache."""
    return ((numbers + PAIR * LANES - 1) // (PAIR * LANES) | 1) * LANES


row_words = inlined(_row_words)


def left_size(rows: int, K: int, dtype: np.dtype[Any]) -> int:
    """Elements of working memory for a left operand (rows, K), packed into `dtype`; exact ones are read in place."""
    if dtype != WORD:
        return 0
    return max(rows * _row_words(K), -(-K // PAIR) * -(-rows // LANES) * LANES)  # by rows, or across them


@device
def _left_in_place(room, A):
    return A


@device
def _left_words(room, A):
    if A.column == 1:
        packed = matrix(room, 0, A.rows, words(A.columns, room), row_words(A.columns))
        for i in range(A.rows):
            round_along(packed[i], A[i])
        return packed
    turned = A.T
    stride = (A.rows + LANES - 1) // LANES * LANES
    packed = matrix(room, 0, words(A.columns, room), A.rows, stride)
    for k in range(packed.rows):
        round_across(packed[k], turned[k * PAIR : k * PAIR + PAIR])
    return packed.T


# left_operand(room, A): a left operand as a tile reads it, packed into `room`, a row of words, or in place. Its rows or
# its columns must be contiguous.
left_operand = by_operand(_left_in_place, _left_words)


@device
def _causal_words(room, A):
    packed = matrix(room, 0, A.rows, words(A.columns, room), row_words(A.columns))
    for i in range(A.rows):
        round_along(packed[i], A[i][: A.diagonal + i + BEYOND])
    return causal(packed, A.diagonal)


@device
def _transposed_words(room, A):
    stride = (A.columns + LANES - 1) // LANES * LANES
    packed = matrix(room, 0, words(A.rows, room), A.columns, stride)
    for i in range(packed.rows):
        round_across(packed[i], A[i * PAIR : i * PAIR + PAIR, : A.diagonal + i * PAIR + BEYOND])
    return causal(packed, A.diagonal)


# A causal matrix as the left operand of A B, and of A^T B, whose sum runs over its rows. The diagonal still counts
# numbers, not words.
left_causal = by_operand(_left_in_place, _causal_words)
left_transposed = by_operand(_left_in_place, _transposed_words)
