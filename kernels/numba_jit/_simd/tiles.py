"""The matrix product in registers: C = A B + P + Q, one register tile at a time (Van Zee & van de Geijn 2015, BLIS).

A tile of MR rows and NV vectors of C stays in registers while k runs: each step loads NV vectors of a row of B and
broadcasts MR elements of a column of A. All operands are views, so the same code computes X W (rows of X), X^T dY
(columns of X) and the products inside attention. Products in bfloat16 have operands of words; see `words`.

Rows are taken by whole tiles first. Smaller tiles take the rest; in them, rows beyond the last repeat it, with the same
bits. B is a panel, padded to whole vectors; columns of C, P and Q beyond the last are masked.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...memory import CACHE_LINE
from .._runtime.jit import c_function, device, inlined
from .._runtime.target import TARGET
from .vector import I8, I32, I64, Lanes, Vec
from .views import Matrix, struct, view_of
from .words import is_words, multiply_words

VECTORS = tuple(TARGET.tile_rows)  # possible widths of a panel: 1, 2, 3, 4
HEIGHTS = tuple(TARGET.tile_rows.values())  # of a tile, for each of them


@intrinsic
def lanes_of(typingctx, array):
    """How many elements of an array, view or pointer fit into a vector: a constant to the compiler."""
    lanes = TARGET.lanes(array.dtype.bitwidth // 8)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(I64, lanes)

    return types.int64(array), codegen


@device
def tile_height(width, lanes):
    """Rows of a tile that is as wide as a panel of `width` columns."""
    return HEIGHTS[width // lanes - 1]


def make_tile(NV: int, MR: int, whole: bool) -> Any:
    """The intrinsic that computes one tile of NV vectors and MR rows, or of up to MR rows unless it is `whole`:

        C = A B + P + Q, without P or Q where it is `nothing_like` a view

    C has 1 to NV vectors of columns; B is read in whole vectors. P and Q may be C.
    """

    @intrinsic
    def tile(typingctx, C, A, B, P, Q):
        def codegen(context, builder, signature, arguments):
            C_, A_, B_, P_, Q_ = (
                struct(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
            )
            registers = _Registers(Lanes(builder, C.dtype), NV, MR, None if whole else C_.rows)
            nothing = ir.Constant(C_.data.type, None)
            addends = [(X, builder.icmp_unsigned("!=", X.data, nothing)) for X in (P_, Q_)]
            registers.prefetch(C_)
            with builder.if_then(addends[1][1]):  # P is a single row, or C
                registers.prefetch(Q_)
            product = registers.multiply(A_, B_, is_words(A))

            lanes = registers.lanes
            full = builder.icmp_signed(">=", C_.columns, ir.Constant(I64, NV * lanes.count))
            with builder.if_else(full) as (then, otherwise):
                with then:
                    registers.finish(C_, product, addends, [None] * NV)
                with otherwise:
                    masks = [
                        lanes.mask_below(builder.sub(C_.columns, ir.Constant(I64, j * lanes.count)))
                        for j in range(NV)
                    ]
                    registers.finish(C_, product, addends, masks)
            return context.get_dummy_value()

        return types.void(C, A, B, P, Q), codegen

    return tile


class _Registers:
    """A tile of MR rows and NV vectors whose code is being written."""

    def __init__(self, lanes: Lanes, NV: int, MR: int, rows: ir.Value | None) -> None:
        """`rows`: the number of rows, if there may be fewer than MR."""
        builder = lanes.builder
        self.lanes, self.builder, self.NV = lanes, builder, NV
        self.rows: list[ir.Value] = [ir.Constant(I64, i) for i in range(MR)]
        if rows is not None:  # those beyond the last are the last
            last = builder.sub(rows, ir.Constant(I64, 1))
            self.rows = [builder.select(builder.icmp_signed("<", i, last), i, last) for i in self.rows]

    def address(self, view: Any, i: int, j: int) -> ir.Value:
        """Where vector j of row i of a matrix is."""
        start = self.builder.mul(self.rows[i], view.row)
        return self.builder.gep(view.data, [self.builder.add(start, ir.Constant(I64, j * self.lanes.count))])

    def prefetch(self, view: Any) -> None:
        """Fetch the tile of C or Q into the cache while k runs: its rows are too far apart for the CPU to guess."""
        builder, per_line = self.builder, CACHE_LINE // self.lanes.itemsize
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, near, data = ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)
        for row in self.rows:
            for j in range(0, self.NV * self.lanes.count, per_line):
                line = builder.gep(view.data, [builder.add(builder.mul(row, view.row), ir.Constant(I64, j))])
                builder.call(function, [builder.bitcast(line, I8.as_pointer()), read, near, data])

    def multiply(self, A: Any, B: Any, of_words: bool) -> list[list[Vec]]:
        """The loop over k; returns the accumulators, [row][vector]."""
        builder, lanes = self.builder, self.lanes
        fma = functools.partial(multiply_words, lanes) if of_words else lanes.fma
        a_data, a_column, b_data, b_row, depth = A.data, A.column, B.data, B.row, B.rows  # each is a load
        a_rows = [builder.mul(row, A.row) for row in self.rows]
        entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, a, b = builder.phi(I64), builder.phi(a_data.type), builder.phi(b_data.type)
        k.add_incoming(ir.Constant(I64, 0), entry)
        a.add_incoming(a_data, entry)
        b.add_incoming(b_data, entry)
        accumulators = [[Vec(lanes, builder.phi(lanes.type)) for _ in range(self.NV)] for _ in a_rows]
        for row in accumulators:
            for accumulator in row:
                accumulator.value.add_incoming(lanes.vec(0.0).value, entry)
        vectors = [lanes.load(builder.gep(b, [ir.Constant(I64, j * lanes.count)])) for j in range(self.NV)]
        new = []
        for row, offset in zip(accumulators, a_rows, strict=True):
            element = lanes.broadcast(builder.gep(a, [offset]))
            new.append([fma(element, vector, total) for vector, total in zip(vectors, row, strict=True)])
        k_next = builder.add(k, ir.Constant(I64, 1))
        k.add_incoming(k_next, loop)
        a.add_incoming(builder.gep(a, [a_column]), loop)
        b.add_incoming(builder.gep(b, [b_row]), loop)
        for row, new_row in zip(accumulators, new, strict=True):
            for accumulator, value in zip(row, new_row, strict=True):
                accumulator.value.add_incoming(value.value, loop)
        _align(builder, builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done))
        builder.position_at_end(done)
        return new

    def finish(
        self, C: Any, values: list[list[Vec]], addends: list[tuple[Any, ir.Value]], masks: Sequence[Vec | None]
    ) -> None:
        """Add those addends whose condition holds, and store.

        All loads come before the first store: rows may be repeated, and P and Q may be C.
        """
        builder, lanes = self.builder, self.lanes
        for view, condition in addends:
            before, add, after = builder.block, builder.append_basic_block("add"), builder.append_basic_block("added")
            builder.cbranch(condition, add, after)
            builder.position_at_end(add)
            sums = [
                [value + lanes.load(self.address(view, i, j), masks[j]) for j, value in enumerate(vectors)]
                for i, vectors in enumerate(values)
            ]
            added = builder.block
            builder.branch(after)
            builder.position_at_end(after)
            merged: list[list[Vec]] = []
            for vectors, sum_vectors in zip(values, sums, strict=True):
                merged.append([])
                for value, total in zip(vectors, sum_vectors, strict=True):
                    phi = builder.phi(lanes.type)
                    phi.add_incoming(value.value, before)
                    phi.add_incoming(total.value, added)
                    merged[-1].append(Vec(lanes, phi))
            values = merged
        for i, vectors in enumerate(values):
            for j, value in enumerate(vectors):
                lanes.store(value, self.address(C, i, j), masks[j])


def _align(builder: ir.IRBuilder, branch: ir.Instruction) -> None:
    """Let the loop that ends in `branch` begin at a cache line of code.

    Anywhere else, the code before a loop can slow it down; bench/NOTES.md says by how much.
    """
    module = builder.module
    alignment = module.add_metadata([ir.MetaDataString(module, "llvm.loop.align"), ir.Constant(I32, CACHE_LINE)])
    loop = module.add_metadata([alignment, alignment])
    loop.operands = (loop, alignment)  # LLVM knows a loop by a node that refers to itself
    branch.set_metadata("llvm.loop", loop)


def make_column(NV: int) -> Any:
    """The function that computes NV vectors of columns of any number of rows."""
    height, rest = TARGET.tile_rows[NV], TARGET.rest_rows[NV]
    tile, rest_tile = make_tile(NV, height, True), make_tile(NV, rest, False)

    @inlined
    def column(C, A, B, P, Q):
        i = 0
        while i + height <= C.rows:
            end = i + height
            tile(C[i:end], A[i:end], B, P[i:end], Q[i:end])
            i = end
        while i < C.rows:
            end = i + rest
            rest_tile(C[i:end], A[i:end], B, P[i:end], Q[i:end])
            i = end

    return column


column_1, column_2, column_3, column_4 = map(make_column, VECTORS)


def _product(C, A, B, P, Q):
    """C = A B + P + Q for any number of rows and up to four vectors of columns; see `make_tile`."""
    vectors = (C.columns + lanes_of(C) - 1) // lanes_of(C)
    if vectors == 4:
        column_4(C, A, B, P, Q)
    elif vectors == 3:
        column_3(C, A, B, P, Q)
    elif vectors == 2:
        column_2(C, A, B, P, Q)
    else:
        column_1(C, A, B, P, Q)


def product_signature(dtype: np.dtype[Any]) -> Any:
    """The signature of the machine code of `product`, for packed operands of `dtype`."""
    operand = Matrix(numba.from_dtype(dtype))
    result = Matrix(types.float32) if is_words(operand) else operand
    return types.void(result, operand, operand, result, result)


@functools.cache
def product_address(dtype: np.dtype[Any]) -> int:
    """The address of the machine code of `product` for float32 or float64, or for words of bfloat16.

    It is large, so it is compiled once and not into each kernel; kernels are passed the address.
    """
    return int(c_function(product_signature(dtype))(_product).address)


@intrinsic
def product(typingctx, address, C, A, B, P, Q):
    """C = A B + P + Q, by the machine code at `product_address` of the dtype"""

    def codegen(context, builder, signature, arguments):
        values = []
        for kind, value in zip(signature.args[1:], arguments[1:], strict=True):
            view = struct(context, builder, kind, value)
            values.append(view_of(context, builder, Matrix(kind.dtype), view.data, *_numbers(view)))
        function = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.int64, C, A, B, P, Q), codegen


def _numbers(view: Any) -> list[ir.Value]:
    return [getattr(view, name) for name in Matrix.members]
