"""A block of a large product: the right operand packed into panels, a part at a time or as a whole, and multiplied."""

from __future__ import annotations

from .._jit import device
from .packing import column_sums, copy_span, pack_panel, prefetch_span
from .tiles import lanes_of, product

AHEAD = 8  # rows that are asked for before they are packed
SWEEP = 96  # rows that meet all panels before the next ones do: a multiple of the tiles' heights


@device
def block_rows(block, blocks, rows, MR):
    """First and last row (or column) of a block, when all tiles of MR rows are dealt out evenly."""
    tiles = (rows + MR - 1) // MR
    return block * tiles // blocks * MR, min(rows, (block + 1) * tiles // blocks * MR)


@device
def pack_columns(panels, at, B, b_k, b_column, k, depth, start, end, NR):
    """Columns start to end of `depth` rows of B from row k on, as panels [panel][k][NR] from `at` on."""
    if b_column == 1:  # row by row, as memory likes it best
        for i in range(depth):
            prefetch_span(B, (k + i + AHEAD) * b_k + start, end - start)
            for j in range(start, end, NR):
                copy_span(panels, at + (j - start) * depth + i * NR, B, (k + i) * b_k + j, min(NR, end - j))
    else:
        for j in range(start, end, NR):
            packed = at + (j - start) * depth
            pack_panel(panels, packed, NR, B, k * b_k + j * b_column, b_k, b_column, depth, min(NR, end - j))


@device
def product_block(
    first, last, start, end, C, c_at, c_row, A, a_row, a_k, B, b_k, b_column, k_first, k_last, piece, multiply,
    panels, at, streamed, NR, bias, use_bias, accumulate, addend, use_addend, sums, sums_at, use_sums,
):  # fmt: skip
    """For rows first to last and columns start to end:  C = A B + bias (or + C if `accumulate`) + addend

    C's elements begin at c_at. The sum runs over k from k_first to k_last, in pieces `piece` long. If `streamed`, each
    piece of B is packed here, to `at`; else the columns lie packed there already, in one piece. `addend` has C's shape
    and may be C: it is added by the first piece, before C is written; it does not go with `accumulate`.
    sums[sums_at + j] += the sum of B's column j.
    """
    for k in range(k_first, k_last, piece):
        depth = min(piece, k_last - k)
        if streamed:
            pack_columns(panels, at, B, b_k, b_column, k, depth, start, end, NR)
        if use_sums:
            for j in range(start, end, NR):
                column_sums(sums, sums_at + j, panels, at + (j - start) * depth, NR, depth, min(NR, end - j))
        for i in range(first, last, SWEEP):
            rows = min(SWEEP, last - i)
            if streamed and a_row == 1:  # tiles read a few elements of each row of A, which the CPU would not guess
                for n in range(k, k + depth):
                    prefetch_span(A, n * a_k + i, rows)
            for j in range(start, end, NR):
                c, packed = c_at + i * c_row + j, at + (j - start) * depth
                if k == k_first and not accumulate:
                    product(
                        multiply, A, i * a_row + k * a_k, a_row, a_k, panels, packed, NR, depth,
                        C, c, c_row, rows, min(NR, end - j), bias, j, 0, use_bias, addend, c, c_row, use_addend,
                    )  # fmt: skip
                else:
                    product(
                        multiply, A, i * a_row + k * a_k, a_row, a_k, panels, packed, NR, depth,
                        C, c, c_row, rows, min(NR, end - j), C, c, c_row, True, C, c, c_row, False,
                    )  # fmt: skip


@device
def causal_product(multiply, A, a, a_row, panels, at, NR, K, C, c, c_row, rows, diagonal):
    """C = A B for one panel of B, as far as it counts: row r needs the columns up to r - diagonal. A little more is
    computed, for tiles are of whole vectors; what lies beyond them is not written."""
    lanes = lanes_of(panels)
    r = max(0, diagonal)
    while r < rows:
        columns = min(NR, (r - diagonal) // lanes * lanes + lanes)
        end = rows if columns == NR else min(rows, diagonal + columns)
        product(
            multiply, A, a + r * a_row, a_row, 1, panels, at, NR, K, C, c + r * c_row, c_row, end - r, columns,
            A, 0, 0, False, A, 0, 0, False,
        )  # fmt: skip
        r = end
