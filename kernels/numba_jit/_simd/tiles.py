"""The matrix product in registers: C = A B + P + Q, one register tile at a time (Van Zee & van de Geijn 2015, BLIS).

A tile of MR rows and NV vectors of C stays in registers while k runs: each step loads NV vectors of a row of B, and
broadcasts MR elements of a column of A. All are views, so one piece of code serves X W (rows of X), X^T dY (columns of
X), and the products inside attention.

Rows are taken by whole tiles, whose offsets LLVM works out once for all of them, and what is left by smaller ones, in
which offsets beyond the last row are clamped to it: it is computed more than once, with the same bits. B is a panel,
padded to whole vectors; columns of C, P and Q beyond the last are masked.
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

VECTORS = tuple(TARGET.tile_rows)  # that a panel may be wide: 1, 2, 3, 4
HEIGHTS = tuple(TARGET.tile_rows.values())  # of a tile, by them


@intrinsic
def lanes_of(typingctx, array):
    """How many elements of this array, view or pointer one vector holds: a constant when compiled."""
    lanes = TARGET.lanes(array.dtype.bitwidth // 8)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(I64, lanes)

    return types.int64(array), codegen


@device
def tile_height(width, lanes):
    """Rows of a tile as wide as a panel of so many columns."""
    return HEIGHTS[width // lanes - 1]


def make_tile(NV: int, MR: int, whole: bool) -> Any:
    """The intrinsic that computes one tile of MR rows, all of them if `whole`, and NV vectors:

        C = A B + P + Q, without P or Q if it is `nothing_like` a view

    C has 1 to MR rows, or MR if `whole`, and 1 to NV vectors of columns; B is read in whole vectors. P and Q may be C.
    """

    @intrinsic
    def tile(typingctx, C, A, B, P, Q):
        def codegen(context, builder, signature, arguments):
            C_, A_, B_, P_, Q_ = (
                struct(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)
            )
            lanes = Lanes(builder, C.dtype)
            indices = [ir.Constant(I64, i) for i in range(MR)]
            if not whole:  # those beyond the last clamped to it
                last = builder.sub(C_.rows, ir.Constant(I64, 1))
                indices = [builder.select(builder.icmp_signed("<", index, last), index, last) for index in indices]

            a_rows = [builder.mul(index, A_.row) for index in indices]
            nothing = ir.Constant(C_.data.type, None)
            addends = [(X.data, X.row, builder.icmp_unsigned("!=", X.data, nothing)) for X in (P_, Q_)]
            _prefetch(builder, lanes, NV, C_.data, C_.row, indices)
            with builder.if_then(addends[1][2]):  # P is a single row, or C
                _prefetch(builder, lanes, NV, addends[1][0], addends[1][1], indices)
            accumulators = _multiply(builder, lanes, NV, A_.data, a_rows, A_.column, B_.data, B_.row, B_.rows)

            full = builder.icmp_signed(">=", C_.columns, ir.Constant(I64, NV * lanes.count))
            with builder.if_else(full) as (then, otherwise):
                with then:
                    _finish(builder, lanes, accumulators, indices, C_.data, C_.row, addends, [None] * NV)
                with otherwise:
                    masks = [
                        lanes.mask_below(builder.sub(C_.columns, ir.Constant(I64, j * lanes.count)))
                        for j in range(NV)
                    ]
                    _finish(builder, lanes, accumulators, indices, C_.data, C_.row, addends, masks)
            return context.get_dummy_value()

        return types.void(C, A, B, P, Q), codegen

    return tile


def _prefetch(
    builder: ir.IRBuilder, lanes: Lanes, NV: int, start: ir.Value, row: ir.Value, indices: list[ir.Value]
) -> None:
    """Have a tile of C or Q brought to the cache while k runs: its rows lie too far apart for the CPU to guess."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, near, data = ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)
    for index in indices:
        for j in range(0, NV * lanes.count, CACHE_LINE // lanes.itemsize):
            line = builder.gep(start, [builder.add(builder.mul(index, row), ir.Constant(I64, j))])
            builder.call(function, [builder.bitcast(line, I8.as_pointer()), read, near, data])


def _multiply(
    builder: ir.IRBuilder, lanes: Lanes, NV: int, a: ir.Value, a_rows: list[ir.Value], a_k: ir.Value,
    b: ir.Value, b_k: ir.Value, K: ir.Value,
) -> list[list[Vec]]:  # fmt: skip
    """The loop over k; returns the accumulators [row][vector]."""
    entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, a_now, b_now = builder.phi(I64), builder.phi(a.type), builder.phi(b.type)
    k.add_incoming(ir.Constant(I64, 0), entry)
    a_now.add_incoming(a, entry)
    b_now.add_incoming(b, entry)
    accumulators = [[Vec(lanes, builder.phi(lanes.type)) for _ in range(NV)] for _ in a_rows]
    for row in accumulators:
        for accumulator in row:
            accumulator.value.add_incoming(lanes.vec(0.0).value, entry)
    vectors = [lanes.load(builder.gep(b_now, [ir.Constant(I64, j * lanes.count)])) for j in range(NV)]
    new = []
    for row, offset in zip(accumulators, a_rows, strict=True):
        element = lanes.broadcast(builder.gep(a_now, [offset]))
        new.append([lanes.fma(element, vectors[j], row[j]) for j in range(NV)])
    k_next = builder.add(k, ir.Constant(I64, 1))
    k.add_incoming(k_next, loop)
    a_now.add_incoming(builder.gep(a_now, [a_k]), loop)
    b_now.add_incoming(builder.gep(b_now, [b_k]), loop)
    for row, new_row in zip(accumulators, new, strict=True):
        for accumulator, value in zip(row, new_row, strict=True):
            accumulator.value.add_incoming(value.value, loop)
    builder.cbranch(builder.icmp_signed("<", k_next, K), loop, done)
    builder.position_at_end(done)
    return new


def _finish(
    builder: ir.IRBuilder, lanes: Lanes, accumulators: list[list[Vec]], indices: list[ir.Value], out: ir.Value,
    out_row: ir.Value, addends: list[tuple[ir.Value, ir.Value, ir.Value]], masks: Sequence[Vec | None],
) -> None:  # fmt: skip
    """Add the addends in use and store. All loads come before the first store: rows may be doubled, P and Q be C."""

    def place(start: ir.Value, row: ir.Value, i: int, j: int) -> ir.Value:
        return builder.gep(start, [builder.add(builder.mul(indices[i], row), ir.Constant(I64, j * lanes.count))])

    values = accumulators
    for start, row, use in addends:
        before, add, after = builder.block, builder.append_basic_block("add"), builder.append_basic_block("added")
        builder.cbranch(use, add, after)
        builder.position_at_end(add)
        sums = [
            [value + lanes.load(place(start, row, i, j), masks[j]) for j, value in enumerate(vectors)]
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
            lanes.store(value, place(out, out_row, i, j), masks[j])


def make_column(NV: int) -> Any:
    """The function that computes any number of rows, NV vectors wide: whole tiles, then smaller ones."""
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
    """As a tile, for any number of rows and up to four vectors of columns."""
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
    """Of `product`'s machine code."""
    return types.void(*[Matrix(numba.from_dtype(dtype))] * 5)


@functools.cache
def product_address(dtype: np.dtype[Any]) -> int:
    """Where the machine code of `product` for float32 or float64 stands. It is large, so it is compiled once by itself
    and not into each kernel; kernels are handed this address."""
    return int(c_function(product_signature(dtype))(_product).address)


@intrinsic
def product(typingctx, address, C, A, B, P, Q):
    """C = A B + P + Q for any number of rows and up to four vectors of columns; see `make_tile`. The first argument is
    `product_address` of the dtype."""

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
