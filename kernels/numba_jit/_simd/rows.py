"""One or two rows times a matrix, for generation: the matrix is read once, as it lies, and nothing else takes time."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .._runtime.jit import c_function
from .._runtime.target import TARGET
from .tiles import lanes_of
from .vector import I64, Lanes, Vec
from .views import place

PART = 4096  # elements of the matrix that are done with before the next: they fit into the first cache
ROW_VECTORS = 8  # accumulators of a row: enough to hide the latency of a multiply-add
BOTH_VECTORS = TARGET.registers // 4  # of each of two rows, beside as many of the matrix: all fit into the registers


@intrinsic
def rows_by_vectors(typingctx, OUT, out, out_row, X, x, x_row, rows, W, w, w_row, K, columns, add):
    """OUT[out + i out_row + j] = sum of X[x + i x_row + k] * W[w + k w_row + j] over k < K, in this order, for
    i < rows, which is 1 or 2, and j < columns, at most ROW_VECTORS vectors; added to OUT unless `add` is 0"""

    def codegen(context, builder, signature, arguments):
        OUT_, out_, out_row_, X_, x_, x_row_, rows_, W_, w_, w_row_, K_, columns_, add_ = arguments
        adding = builder.icmp_signed("!=", add_, ir.Constant(I64, 0))
        lanes = Lanes(builder, X.dtype)
        matrix = place(context, builder, W, W_, w_)
        targets, sources = [place(context, builder, OUT, OUT_, out_)], [place(context, builder, X, X_, x_)]
        targets.append(builder.gep(targets[0], [out_row_]))
        sources.append(builder.gep(sources[0], [x_row_]))
        whole = builder.sdiv(columns_, ir.Constant(I64, lanes.count))
        start = builder.mul(whole, ir.Constant(I64, lanes.count))
        rest = lanes.mask_below(builder.sub(columns_, start))

        def multiply(number: int, offsets: list[ir.Value], mask: Vec | None) -> None:
            """`number` rows, by the vectors of columns at `offsets`"""
            begun: list[list[ir.Value]] = []
            for target in targets[:number]:
                found = [lanes.load(builder.gep(target, [offset]), mask) for offset in offsets]
                begun.append([builder.select(adding, vector.value, lanes.vec(0.0).value) for vector in found])
            entry, loop, done = builder.block, builder.append_basic_block("k"), builder.append_basic_block("k.end")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(I64)
            sums = [[Vec(lanes, builder.phi(lanes.type)) for _ in offsets] for _ in range(number)]
            k.add_incoming(ir.Constant(I64, 0), entry)
            weights = builder.gep(matrix, [builder.mul(k, w_row_)])
            vectors = [lanes.load(builder.gep(weights, [offset]), mask) for offset in offsets]
            k_next = builder.add(k, ir.Constant(I64, 1))
            k.add_incoming(k_next, loop)
            for source, row_sums, before in zip(sources, sums, begun, strict=False):
                element = lanes.broadcast(builder.gep(source, [k]))
                for i, vector in enumerate(vectors):
                    total = lanes.fma(element, vector, row_sums[i])
                    row_sums[i].value.add_incoming(before[i], entry)
                    row_sums[i].value.add_incoming(total.value, loop)
                    row_sums[i] = total
            builder.cbranch(builder.icmp_signed("<", k_next, K_), loop, done)
            builder.position_at_end(done)
            for target, row_sums in zip(targets, sums, strict=False):
                for offset, total in zip(offsets, row_sums, strict=True):
                    lanes.store(total, builder.gep(target, [offset]), mask)

        def all_columns(number: int, most: int) -> None:
            end = builder.append_basic_block("whole.end")
            choice = builder.switch(whole, end)
            for count in range(1, ROW_VECTORS + 1):
                block = builder.append_basic_block("whole")
                choice.add_case(ir.Constant(I64, count), block)
                builder.position_at_end(block)
                for first in range(0, count, most):
                    vectors = range(first, min(count, first + most))
                    multiply(number, [ir.Constant(I64, v * lanes.count) for v in vectors], None)
                builder.branch(end)
            builder.position_at_end(end)
            with builder.if_then(builder.icmp_signed("<", start, columns_)):
                multiply(number, [start], rest)

        with builder.if_else(builder.icmp_signed("==", rows_, ir.Constant(I64, 1))) as (one, two):
            with one:
                all_columns(1, ROW_VECTORS)
            with two:
                all_columns(2, BOTH_VECTORS)
        return context.get_dummy_value()

    n = types.int64
    return types.void(OUT, n, n, X, n, n, n, W, n, n, n, n, n), codegen


def rows_signature(pointer: types.Type) -> Any:
    n = types.int64
    return types.void(pointer, n, n, pointer, n, n, n, pointer, n, n, n, n)


def _rows_product(OUT, out, out_row, X, x, x_row, rows, W, w, w_row, K, columns):
    """As `rows_by_vectors`, for any number of columns: part of the matrix after part, so that a wide one too is read
    from memory as one stream."""
    width = ROW_VECTORS * lanes_of(W)
    depth = K if columns <= width else max(8, PART // columns)
    for k in range(0, K, depth):
        for j in range(0, columns, width):
            rows_by_vectors(
                OUT, out + j, out_row, X, x + k, x_row, rows, W, w + k * w_row + j, w_row, min(depth, K - k),
                min(width, columns - j), k,
            )  # fmt: skip


@functools.cache
def rows_product_address(dtype: np.dtype[Any]) -> int:
    """Where the machine code of `rows_product` for float32 or float64 stands; compiled once, as `tiles.product`."""
    return int(c_function(rows_signature(types.CPointer(numba.from_dtype(dtype))))(_rows_product).address)


@intrinsic
def rows_product(typingctx, address, OUT, out, out_row, X, x, x_row, rows, W, w, w_row, K, columns):
    """OUT[out + i out_row + j] = sum of X[x + i x_row + k] * W[w + k w_row + j] over k < K, in this order, for
    i < rows, which is 1 or 2, and j < columns. The first argument is `rows_product_address` of the dtype."""
    n = types.int64
    signature = types.void(n, OUT, n, n, X, n, n, n, W, n, n, n, n)

    def codegen(context, builder, signature, arguments):
        zero = ir.Constant(I64, 0)
        values = [
            value if kind == n else place(context, builder, kind, value, zero)
            for value, kind in zip(arguments, signature.args, strict=True)
        ]
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values[1:]])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return signature, codegen
