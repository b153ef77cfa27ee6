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
from numba.core import types
from numba.extending import intrinsic

from ...bfloat16 import Precision
from .._runtime.jit import inlined
from .._runtime.target import TARGET
from .vector import I32, I64, Lanes, Vec

PAIR = 2 if TARGET.bf16 else 1  # numbers in a word
WORD = np.dtype(np.uint32)
LANES = TARGET.lanes(4)
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


@intrinsic
def is_rounded(typingctx, view):
    """Whether a view is of words or of bfloat16 as uint16: a constant to the compiler."""
    found = int(is_words(view) or view.dtype == types.uint16)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(1), found)

    return types.boolean(view), codegen


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
        first, second = (Vec(lanes, builder.bitcast(x.value, lanes.type)) for x in (a, b))
        return lanes.fma(first, second, total)
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
