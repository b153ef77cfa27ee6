"""Products of one or two rows with a matrix, for generation: they take as long as reading the matrix once."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .._runtime.jit import c_function, device
from .._runtime.target import TARGET
from .reductions import dot, four_dots
from .tiles import lanes_of
from .vector import I64, Lanes, Vec
from .views import Matrix, struct

PART = 4096  # elements of a wide B that are used before the next ones: they fit into the first-level cache
ROW_VECTORS = 8  # accumulators of one row: enough to hide the latency of FMA
BOTH_VECTORS = TARGET.registers // 4  # accumulators of each of two rows, beside as many vectors of B in registers


@intrinsic
def multiply_part(typingctx, C, A, B, begun):
    """C = A B, or C += A B if `begun` is not 0, for one or two rows and at most ROW_VECTORS vectors of columns

    The columns of A lie side by side, as do those of B and C. The sum over k runs in its order.
    """

    def codegen(context, builder, signature, arguments):
        c, a, b = (
            struct(context, builder, kind, value) for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        adding = builder.icmp_signed("!=", arguments[3], ir.Constant(I64, 0))
        lanes = Lanes(builder, C.dtype)
        load = lanes.load_halves if B.dtype == types.uint16 else lanes.load
        targets = [c.data, builder.gep(c.data, [c.row])]
        sources = [a.data, builder.gep(a.data, [a.row])]
        whole = builder.sdiv(c.columns, ir.Constant(I64, lanes.count))
        start = builder.mul(whole, ir.Constant(I64, lanes.count))
        rest = lanes.mask_below(builder.sub(c.columns, start))

        def multiply(rows: int, offsets: list[ir.Value], mask: Vec | None) -> None:
            """The vectors of columns at `offsets`, of one row or two."""
            before: list[list[ir.Value]] = []
            for target in targets[:rows]:
                found = [lanes.load(builder.gep(target, [offset]), mask) for offset in offsets]
                before.append([builder.select(adding, vector.value, lanes.vec(0.0).value) for vector in found])
            entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(I64)
            sums = [[Vec(lanes, builder.phi(lanes.type)) for _ in offsets] for _ in range(rows)]
            k.add_incoming(ir.Constant(I64, 0), entry)
            b_row = builder.gep(b.data, [builder.mul(k, b.row)])
            vectors = [load(builder.gep(b_row, [offset]), mask) for offset in offsets]
            k_next = builder.add(k, ir.Constant(I64, 1))
            k.add_incoming(k_next, loop)
            for source, row_sums, row_before in zip(sources, sums, before, strict=False):
                element = lanes.broadcast(builder.gep(source, [k]))
                for i, vector in enumerate(vectors):
                    total = lanes.fma(element, vector, row_sums[i])
                    row_sums[i].value.add_incoming(row_before[i], entry)
                    row_sums[i].value.add_incoming(total.value, loop)
                    row_sums[i] = total
            builder.cbranch(builder.icmp_signed("<", k_next, b.rows), loop, done)
            builder.position_at_end(done)
            for target, row_sums in zip(targets, sums, strict=False):
                for offset, total in zip(offsets, row_sums, strict=True):
                    lanes.store(total, builder.gep(target, [offset]), mask)

        def all_columns(rows: int, most: int) -> None:
            """A loop over k of its own for each number of whole vectors, `most` of them at once; then the rest."""
            end = builder.append_basic_block("whole.end")
            choice = builder.switch(whole, end)
            for count in range(1, ROW_VECTORS + 1):
                block = builder.append_basic_block("whole")
                choice.add_case(ir.Constant(I64, count), block)
                builder.position_at_end(block)
                for first in range(0, count, most):
                    vectors = range(first, min(count, first + most))
                    multiply(rows, [ir.Constant(I64, v * lanes.count) for v in vectors], None)
                builder.branch(end)
            builder.position_at_end(end)
            with builder.if_then(builder.icmp_signed("<", start, c.columns)):
                multiply(rows, [start], rest)

        with builder.if_else(builder.icmp_signed("==", c.rows, ir.Constant(I64, 1))) as (one, two):
            with one:
                all_columns(1, ROW_VECTORS)
            with two:
                all_columns(2, BOTH_VECTORS)
        return context.get_dummy_value()

    return types.void(C, A, B, types.int64), codegen


def _rows_product(C, A, B):
    """C = A B for one or two rows and any number of columns: a wide B is read part by part, as one stream."""
    width = ROW_VECTORS * lanes_of(C)
    depth = B.rows if B.columns <= width else max(8, PART // B.columns)
    for k in range(0, B.rows, depth):
        for j in range(0, B.columns, width):
            multiply_part(C[:, j : j + width], A[:, k : k + depth], B[k : k + depth, j : j + width], k)


@functools.cache
def rows_product_address(dtype: np.dtype[Any]) -> int:
    """The address of the machine code of `rows_product` for B of float32 or float64, or of bfloat16 as uint16; compiled
    by itself, as `tiles.product` is."""
    B = Matrix(numba.from_dtype(dtype))
    rows = Matrix(types.float32) if dtype == np.uint16 else B
    signature = types.void(rows, rows, B)
    return int(c_function(signature)(_rows_product).address)


@intrinsic
def rows_product(typingctx, address, C, A, B):
    """C = A B, for one or two rows. `address` is the `rows_product_address` of the dtype."""

    def codegen(context, builder, signature, arguments):
        code, *matrices = arguments
        function = ir.FunctionType(ir.VoidType(), [matrix.type for matrix in matrices])
        builder.call(builder.inttoptr(code, function.as_pointer()), matrices)
        return context.get_dummy_value()

    return types.void(types.int64, C, A, B), codegen


@device
def dots(out, Y, x):
    """out = Y x, as the dot products of x with each row of Y"""
    whole = Y.rows // 4 * 4
    for j in range(0, whole, 4):
        four_dots(out[j : j + 4], x, Y[j : j + 4])
    for j in range(whole, Y.rows):
        out[j] = dot(x, Y[j])
