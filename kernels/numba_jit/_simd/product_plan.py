"""How the products of linear layers are split: into blocks for the threads, and pieces of the right operand to pack.

Whatever affects the rounding of a sum depends on the sizes alone; the rest may depend on the number of threads.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .._runtime.target import TARGET, panel_vectors
from .word_rows import left_size
from .words import numbers_per_word

SWEEP = 96  # rows of the left operand that are multiplied with all panels: a multiple of the tiles' heights
BLOCK_ROWS = 96  # at most: their part of the left operand stays in the L2 cache while it meets all panels
BLOCK_SIZE = 131072  # elements of the result, roughly: they should still be in the cache for the activation
# The sum over k in dW is split into pieces of so many k that the packed part of dY stays in the L2 cache:
# (columns of dW, at most; k). This affects rounding, so it may depend on the sizes only.
DEPTHS = ((256, 512), (768, 256))
WIDE_DEPTH = 128  # for more columns
# A small dW is computed in slices of N, which are added up at the end: so a thread reads the rows of X and dY that it
# has written itself, not a half of everybody's. This too may depend on the sizes only.
SLICES, SLICED_SIZE, SLICED_ROWS = 2, 1 << 17, 64
FOLDED_ALONE = 1 << 15  # elements; so few are added up before other threads would have started
# Who packs the right operand of a product: all threads together, in a loop of its own; each thread all of it, if that
# takes about as long as such a loop, and leaves it in the thread's own cache; or each thread part after part of it,
# while it uses it, if the weight is large and the rows are few
TOGETHER, ALONE, STREAMED = 0, 1, 2
ALONE_SIZE = 1 << 16
STREAMED_ROWS, STREAMED_SIZE = 512, 1 << 19
STREAMED_DEPTH, STREAMED_COLUMNS = 256, 512


class ProductPlan(NamedTuple):
    """How a product is split."""

    multiply: int  # the address of the product's machine code
    size: int  # elements of working memory for the packed right operand
    packing: int  # TOGETHER, ALONE or STREAMED
    part: int  # elements of it that belong to each thread; 0 if all threads pack together
    depth: int  # rows of the right operand that are packed at a time, or words of them
    width: int  # columns that are packed at a time
    NR: int  # columns of a panel
    MR: int  # rows of a tile
    row_blocks: int
    column_blocks: int
    left: int  # elements of working memory in which each thread packs rows of the left operand
    shares: int  # that the blocks are dealt out to: one per thread, or one per block


@functools.lru_cache(4096)
def plan_product(
    rows: int, K: int, columns: int, dtype: np.dtype[Any], threads: int, multiply: int
) -> ProductPlan:
    """For Y = X W and dX = dY W^T with so many rows and columns. `dtype` is that of packed operands."""
    NR, MR = tile_shape(columns, dtype)
    left = left_size(min(rows, SWEEP), K, dtype)
    if rows <= STREAMED_ROWS and K * columns >= STREAMED_SIZE:
        row_blocks, column_blocks = split_among_threads(rows, MR, columns, NR, threads)
        left = left_size(min(rows, SWEEP), min(K, STREAMED_DEPTH), dtype)
        depth = -(-min(K, STREAMED_DEPTH) // numbers_per_word(dtype))
        width = STREAMED_COLUMNS // NR * NR
        part, shares = depth * width, row_blocks * column_blocks
        return ProductPlan(
            multiply, threads * part, STREAMED, part, depth, width, NR, MR, row_blocks, column_blocks, left,
            shares,
        )  # fmt: skip
    depth = -(-K // numbers_per_word(dtype))
    size = panels_size(depth, columns, NR)
    row_blocks, column_blocks = split(rows, MR, columns, NR, threads)
    if size <= ALONE_SIZE and column_blocks == 1:
        shares = min(row_blocks, threads)
        return ProductPlan(multiply, threads * size, ALONE, size, depth, columns, NR, MR, row_blocks, 1, left, shares)
    shares = row_blocks * column_blocks
    return ProductPlan(
        multiply, size, TOGETHER, 0, depth, columns, NR, MR, row_blocks, column_blocks, left, shares
    )


class WeightGradientPlan(NamedTuple):
    """How dW = X^T dY is split: always streamed, with all columns of a block at a time."""

    multiply: int
    size: int
    partial: int  # elements of working memory for the sums of all slices but the first, with their dbias
    part: int
    depth: int
    width: int
    NR: int
    MR: int
    slices: int  # of N
    row_blocks: int
    column_blocks: int
    left: int
    shares: int
    folds: int  # shares into which the slices' sums are split to be added up; 0 if one thread does it all


@functools.lru_cache(4096)
def plan_weight_gradient(
    N: int, rows: int, columns: int, dtype: np.dtype[Any], threads: int, multiply: int
) -> WeightGradientPlan:
    """For dW with so many rows and columns, a sum over N."""
    NR, MR = tile_shape(columns, dtype)
    slices = SLICES if N >= SLICED_ROWS and rows * columns <= SLICED_SIZE else 1
    each = threads if threads % slices else threads // slices  # an odd number of threads cuts every slice
    row_blocks, column_blocks = split_among_threads(rows, MR, columns, NR, each)
    depth = min(-(-N // slices), next((depth for widest, depth in DEPTHS if widest >= columns), WIDE_DEPTH))
    panels = -(-columns // NR)
    left = left_size(min(rows, SWEEP), depth, dtype)
    depth = -(-depth // numbers_per_word(dtype))
    part = depth * -(-panels // column_blocks) * NR
    return WeightGradientPlan(
        multiply, threads * part, (slices - 1) * (rows + 1) * columns, part, depth, columns, NR, MR,
        slices, row_blocks, column_blocks, left, min(threads, slices * row_blocks * column_blocks),
        0 if rows * columns <= FOLDED_ALONE else threads,
    )  # fmt: skip


def tile_shape(columns: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """NR columns of a panel and MR rows of a tile, for a right operand with so many columns."""
    vectors = panel_vectors(columns, dtype.itemsize)
    return vectors * TARGET.lanes(dtype.itemsize), TARGET.tile_rows[vectors]


def panels_size(K: int, columns: int, NR: int) -> int:
    """Elements that a right operand (K, columns) takes when packed."""
    return -(-columns // NR) * NR * K


def split(rows: int, MR: int, columns: int, NR: int, threads: int) -> tuple[int, int]:
    """The numbers of blocks of rows and of columns: enough blocks of rows to keep the threads evenly busy, small enough
    to stay in the cache; several blocks of columns only if there are not enough rows."""
    tiles, panels = -(-rows // MR), -(-columns // NR)
    most = max(MR, min(BLOCK_ROWS, BLOCK_SIZE // columns))
    row_blocks = min(tiles, -(-max(1, rows // most) // threads) * threads)
    column_blocks = min(panels, -(-threads // row_blocks))
    return row_blocks, column_blocks


def split_among_threads(rows: int, MR: int, columns: int, NR: int, threads: int) -> tuple[int, int]:
    """The numbers of blocks for one block per thread: by columns as far as that is balanced, since then no two threads
    pack the same columns, otherwise by rows."""
    tiles, panels = -(-rows // MR), -(-columns // NR)
    even = [c for c in range(1, threads + 1) if threads % c == 0 and (panels % c == 0 or panels >= 8 * c)]
    return min(tiles, threads // even[-1]), even[-1]
