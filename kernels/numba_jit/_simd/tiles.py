"""The matrix product in registers: C = A B + P + Q, one register tile at a time (Van Zee & van de Geijn 2015, BLIS).

A tile of MR rows and NV vectors of C stays in registers while k runs: each step loads NV vectors of a row of B, and
broadcasts MR elements of a column of A. Everything is given by offset and stride in elements, so one piece of code
serves X W (rows of X), X^T dY (columns of X), and the products inside attention.

Rows are taken by whole tiles, whose offsets LLVM works out once for all of them, and what is left by smaller ones, in
which offsets beyond the last row are clamped to it: it is computed more than once, with the same bits. B's panels are
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
from .._jit import c_function
from .target import TARGET
from .vector import I8, I32, I64, Lanes, Vec


@intrinsic
def lanes_of(typingctx, array):
    """How many elements of this array or pointer one vector holds: a constant when compiled."""
    lanes = TARGET.lanes(array.dtype.bitwidth // 8)

    def codegen(context, builder, signature, arguments):
        return ir.Constant(I64, lanes)

    return types.int64(array), codegen


def product_signature(pointer: types.Type) -> Any:
    """The signature of `tile` and of `product`'s machine code, for arrays of one dtype."""
    n = types.int64
    return types.void(
        pointer, n, n, n, pointer, n, n, n, pointer, n, n, n, n, pointer, n, n, n, pointer, n, n, n
    )


def make_tile(NV: int, MR: int, whole: bool) -> Any:
    """The intrinsic that computes one tile of MR rows, all of them if `whole`, and NV vectors.

    tile(A, a, a_row, a_k,  B, b, b_k,  K,  C, c, c_row, rows, columns,  P, p, p_row, use_p,  Q, q, q_row, use_q)

    For i < rows, j < columns:  C[c + i c_row + j] = sum_{k<K} A[a + i a_row + k a_k] B[b + k b_k + j]
                                                   + P[p + i p_row + j] if use_p + Q[q + i q_row + j] if use_q
    1 <= rows <= MR, or MR if `whole`; 1 <= columns <= NV vectors; B is read in whole vectors. P and Q may be C.
    A, B, C, P, Q are pointers; all else are int64.
    """

    @intrinsic
    def tile(
        typingctx, A, a, a_row, a_k, B, b, b_k, K, C, c, c_row, rows, columns, P, p, p_row, use_p, Q, q, q_row, use_q
    ):
        def codegen(context, builder, signature, arguments):
            (A_, a_, a_row_, a_k_, B_, b_, b_k_, K_, C_, c_, c_row_, rows_, columns_,
             P_, p_, p_row_, use_p_, Q_, q_, q_row_, use_q_) = arguments  # fmt: skip
            lanes = Lanes(builder, A.dtype)
            indices = [ir.Constant(I64, i) for i in range(MR)]
            if not whole:  # those beyond the last clamped to it
                last = builder.sub(rows_, ir.Constant(I64, 1))
                indices = [builder.select(builder.icmp_signed("<", index, last), index, last) for index in indices]

            a_start, b_start = builder.gep(A_, [a_]), builder.gep(B_, [b_])
            a_rows = [builder.mul(index, a_row_) for index in indices]
            zero = ir.Constant(I64, 0)
            addends = [
                (builder.gep(P_, [p_]), p_row_, builder.icmp_signed("!=", use_p_, zero)),
                (builder.gep(Q_, [q_]), q_row_, builder.icmp_signed("!=", use_q_, zero)),
            ]
            out = builder.gep(C_, [c_])
            _prefetch(builder, lanes, NV, out, c_row_, indices)
            with builder.if_then(addends[1][2]):  # P is a single row, or C
                _prefetch(builder, lanes, NV, addends[1][0], q_row_, indices)
            accumulators = _multiply(builder, lanes, NV, a_start, a_rows, a_k_, b_start, b_k_, K_)

            full = builder.icmp_signed(">=", columns_, ir.Constant(I64, NV * lanes.count))
            with builder.if_else(full) as (then, otherwise):
                with then:
                    _finish(builder, lanes, accumulators, indices, out, c_row_, addends, [None] * NV)
                with otherwise:
                    masks = [
                        lanes.mask_below(builder.sub(columns_, ir.Constant(I64, j * lanes.count))) for j in range(NV)
                    ]
                    _finish(builder, lanes, accumulators, indices, out, c_row_, addends, masks)
            return context.get_dummy_value()

        return product_signature(A), codegen

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


ROWS_1, ROWS_2, ROWS_3, ROWS_4 = (TARGET.tile_rows[nv] for nv in (1, 2, 3, 4))
REST_1, REST_2, REST_3, REST_4 = (TARGET.rest_rows[nv] for nv in (1, 2, 3, 4))
tile_1, tile_2, tile_3, tile_4 = (make_tile(nv, TARGET.tile_rows[nv], True) for nv in (1, 2, 3, 4))
rest_1, rest_2, rest_3, rest_4 = (make_tile(nv, TARGET.rest_rows[nv], False) for nv in (1, 2, 3, 4))


def _product(A, a, a_row, a_k, B, b, b_k, K, C, c, c_row, rows, columns, P, p, p_row, use_p, Q, q, q_row, use_q):
    """As `tile`, for any number of rows and up to four vectors of columns: whole tiles, then smaller ones."""
    vectors = (columns + lanes_of(B) - 1) // lanes_of(B)
    i = 0
    if vectors == 4:
        while i + ROWS_4 <= rows:
            tile_4(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, ROWS_4, columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += ROWS_4
        while i < rows:
            rest_4(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, min(REST_4, rows - i), columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += REST_4
    elif vectors == 3:
        while i + ROWS_3 <= rows:
            tile_3(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, ROWS_3, columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += ROWS_3
        while i < rows:
            rest_3(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, min(REST_3, rows - i), columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += REST_3
    elif vectors == 2:
        while i + ROWS_2 <= rows:
            tile_2(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, ROWS_2, columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += ROWS_2
        while i < rows:
            rest_2(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, min(REST_2, rows - i), columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += REST_2
    else:
        while i + ROWS_1 <= rows:
            tile_1(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, ROWS_1, columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += ROWS_1
        while i < rows:
            rest_1(
                A, a + i * a_row, a_row, a_k, B, b, b_k, K, C, c + i * c_row, c_row, min(REST_1, rows - i), columns,
                P, p + i * p_row, p_row, use_p, Q, q + i * q_row, q_row, use_q,
            )  # fmt: skip
            i += REST_1


@functools.cache
def product_address(dtype: np.dtype[Any]) -> int:
    """Where the machine code of `product` for float32 or float64 stands. It is large, so it is compiled once by itself
    and not into each kernel; kernels are handed this address."""
    return int(c_function(product_signature(types.CPointer(numba.from_dtype(dtype))))(_product).address)


@intrinsic
def product(
    typingctx, address, A, a, a_row, a_k, B, b, b_k, K, C, c, c_row, rows, columns,
    P, p, p_row, use_p, Q, q, q_row, use_q,
):  # fmt: skip
    """C = A B + P + Q for any number of rows and up to four vectors of columns; see `make_tile`. The first argument is
    `product_address` of the dtype; A, B, C, P, Q are arrays; C may be P or Q."""
    n, yes = types.int64, types.boolean
    signature = types.void(n, A, n, n, n, B, n, n, n, C, n, n, n, n, P, n, n, yes, Q, n, n, yes)

    def codegen(context, builder, signature, arguments):
        address_, *rest = arguments
        values = []
        for value, kind in zip(rest, signature.args[1:], strict=True):
            if isinstance(kind, types.Array):
                value = cgutils.create_struct_proxy(kind)(context, builder, value=value).data
            elif kind == types.boolean:
                value = builder.zext(value, I64)
            values.append(value)
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        builder.call(builder.inttoptr(address_, kind.as_pointer()), values)
        return context.get_dummy_value()

    return signature, codegen
