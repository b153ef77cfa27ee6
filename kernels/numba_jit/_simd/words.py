"""Operands of products in bfloat16, packed as words of 32 bits; `kernels.bfloat16` says what is rounded.

A word holds the numbers of one column of the right operand, or one row of the left one, that are adjacent along the
sum. With AVX512_BF16 it holds a pair of bfloat16, which `vdpbf16ps` multiplies at once; then an odd last number is
paired with 0. Elsewhere a word is a float32 that holds a bfloat16, which the tiles of float32 multiply: the same
mathematics, no faster. Arrays of words are of uint32, which tells them from exact operands.

Everything around the tiles is the same for exact operands, of which one is a "word", and for these.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...bfloat16 import Precision
from .._runtime.jit import device, inlined
from .._runtime.target import TARGET
from .passes import operands, vector_loop
from .vector import I32, I64, Lanes, Vec
from .views import causal, matrix, struct

PAIR = 2 if TARGET.bf16 else 1  # numbers in a word
WORD = np.dtype(np.uint32)
LANES = TARGET.lanes(4)
BEYOND = 16  # elements beyond the diagonal of a causal matrix that tiles may read: more than their rows
I16 = ir.IntType(16)


def operand_dtype(dtype: np.dtype[Any], precision: Precision) -> np.dtype[Any]:
    """The dtype of packed operands, for arrays of `dtype`."""
    return WORD if precision == "bf16" else dtype


def numbers_per_word(dtype: np.dtype[Any]) -> int:
    """How many numbers along a sum an element of packed operands holds."""
    return PAIR if dtype == WORD else 1


def is_words(kind: Any) -> bool:
    """Whether a view, in Numba's types, is of words."""
    return bool(kind.dtype == types.uint32)


@intrinsic
def per_word(typingctx, view):
    """How many numbers along a sum an element of a view holds: a constant to the compiler."""
    numbers = PAIR if is_words(view) else 1

    def codegen(context, builder, signature, arguments):
        return ir.Constant(I64, numbers)

    return types.int64(view), codegen


@inlined
def words(numbers, view):
    """How many elements of a view so many numbers along a sum take."""
    return (numbers + per_word(view) - 1) // per_word(view)


def by_operand(exact: Any, rounded: Any) -> Any:
    """The function that is `exact`, or `rounded` if its first argument is of words. Which one, the compiler decides."""

    def choose(typingctx: Any, *arguments: Any) -> Any:
        function = types.Dispatcher(rounded if is_words(arguments[0]) else exact)
        signature = function.get_call_type(typingctx, arguments, {})

        def codegen(context, builder, signature, arguments):
            call = context.get_function(function, signature)
            context.add_linking_libs(getattr(call, "libs", ()))
            return call(builder, arguments)

        return signature, codegen

    if len(inspect.signature(exact.py_func).parameters) == 2:

        @intrinsic
        def of_two(typingctx, first, second):
            return choose(typingctx, first, second)

        return of_two

    @intrinsic
    def of_three(typingctx, first, second, third):
        return choose(typingctx, first, second, third)

    return of_three


# --------------------------------------------------------------------------------------------------- in LLVM registers


class BFloat(ir.types.Type):
    """LLVM's type of a bfloat16, which llvmlite lacks."""

    null = "0.0"

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash("bfloat")


PAIRS = ir.VectorType(BFloat(), 2 * LANES)


def multiply_words(lanes: Lanes, a: Vec, b: Vec, total: Vec) -> Vec:
    """total + a * b, where a and b are vectors of words; with pairs, total + first product + second product"""
    builder = lanes.builder
    if PAIR == 1:
        return lanes.fma(a, b, total)
    function = lanes.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", lanes.type, [lanes.type, PAIRS, PAIRS])
    pairs = [builder.bitcast(x.value, PAIRS) for x in (a, b)]
    return Vec(lanes, builder.call(function, [total.value, *pairs]))


def rounded_vector(lanes: Lanes, x: Vec) -> Vec:
    """float32 numbers rounded to bfloat16, as in `kernels.bfloat16.rounded`"""
    builder, number = lanes.builder, lanes.integer_constant
    bits = builder.bitcast(x.value, lanes.integers)
    odd = builder.and_(builder.lshr(bits, number(16)), number(1))
    nearest = builder.add(builder.add(bits, number(0x7FFF)), odd)
    is_nan = builder.fcmp_unordered("uno", x.value, x.value)
    bits = builder.select(is_nan, builder.or_(bits, number(0x00400000)), nearest)
    return Vec(lanes, builder.bitcast(builder.and_(bits, number(0xFFFF0000)), lanes.type))


def words_of(lanes: Lanes, parts: list[Vec], across: bool) -> Vec:
    """A vector of words from PAIR vectors of float32: the numbers of a row, one after the other, or, if `across`, one
    number of each of PAIR rows in each word"""
    builder = lanes.builder
    if PAIR == 1:
        return rounded_vector(lanes, parts[0])
    function = lanes.intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", PAIRS, [lanes.type, lanes.type])
    both = builder.call(function, [parts[1].value, parts[0].value])
    if across:
        halves = ir.VectorType(I16, 2 * LANES)
        order = [i // 2 + LANES * (i % 2) for i in range(2 * LANES)]
        both = builder.bitcast(both, halves)
        both = builder.shuffle_vector(both, both, ir.Constant(ir.VectorType(I32, 2 * LANES), order))
    return Vec(lanes, builder.bitcast(both, lanes.type))


# ---------------------------------------------------------------------------------------------------- rows and squares


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


@intrinsic
def is_rounded(typingctx, view):
    """Whether a view is of words or of bfloat16 as uint16: a constant to the compiler."""
    found = int(is_words(view) or view.dtype == types.uint16)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(1), found)

    return types.boolean(view), codegen


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
