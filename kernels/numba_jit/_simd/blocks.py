"""Products of matrices of any size, whose right operand is packed into panels as a whole or a part at a time."""

from __future__ import annotations

from .._runtime.jit import device, inlined
from .packing import add_sums, pack, prefetch
from .product_plan import SWEEP
from .tiles import lanes_of, product, tile_height
from .views import nothing_like, panel
from .word_rows import left_operand
from .words import per_word, words


@device
def block_rows(block, blocks, length, unit):
    """The range of rows (or columns) of a block when `length` is split evenly, in multiples of `unit`."""
    units = (length + unit - 1) // unit
    return block * units // blocks * unit, min(length, (block + 1) * units // blocks * unit)


# ------------------------------------------------------------------------------------------ with B packed, of any shape


@device
def multiply(C, A, B):
    """C = A B"""
    nothing = nothing_like(C)
    _by_panels(C, A, B, nothing, nothing)


@inlined
def add_product(C, A, B, begun):
    """C += A B if C has `begun`, else C = A B"""
    nothing = nothing_like(C)
    _by_panels(C, A, B, C if begun else nothing, nothing)


@inlined
def _by_panels(C, A, B, P, Q):
    for j in range(0, C.columns, B.width):
        end = j + B.width
        product(B.multiply, C[:, j:end], A, panel(B, j), P[:, j:end], Q[:, j:end])


# -------------------------------------------------------------------------------------------------- up to the diagonal


@device
def multiply_causal(C, A, B):
    """C = A B up to the diagonal of C, rounded up to whole vectors."""
    lanes, nothing = lanes_of(C), nothing_like(C)
    for j in range(0, B.columns, B.width):
        B_panel, diagonal = panel(B, j), C.diagonal - j
        i = max(0, -diagonal)
        while i < C.rows:
            columns = min(B.width, (i + diagonal) // lanes * lanes + lanes)
            end = C.rows if columns == B.width else min(C.rows, columns - diagonal)
            product(B.multiply, C[i:end, j : j + columns], A[i:end], B_panel, nothing, nothing)
            i = end


@device
def add_product_causal(C, A, B, begun):
    """C += A B for causal A, or C = A B unless C has `begun`. Each tile on the diagonal skips the keys after it.

    The diagonal of A counts numbers, also where its elements are words."""
    step = tile_height(B.width, lanes_of(C)) if A.diagonal < B.rows * per_word(B) else C.rows
    for i in range(0, C.rows, step):
        keys = min(B.rows, words(A.diagonal + i + step, B))
        add_product(C[i : i + step], A[i : i + step], B[:keys], begun)


@device
def add_product_transposed(C, A, B):
    """C += A^T B for causal A, or C = A^T B for the keys on the diagonal, which earlier blocks of queries do not see.
    Each tile on the diagonal skips the queries before it."""
    step = tile_height(B.width, lanes_of(C)) if A.diagonal < C.rows else C.rows
    for j in range(0, C.rows, step):
        first = max(0, j - A.diagonal) // per_word(B)
        add_product(C[j : j + step], A[first:, j : j + step].T, B[first:], A.diagonal > j)


# ------------------------------------------------------------------------------------------------------- linear layers


@device
def multiply_add(C, A, B, P, Q, room):
    """C = A B + P + Q with B packed; P and Q may be C. `room` is for rows of A; see `word_rows.left_operand`."""
    for i in range(0, C.rows, SWEEP):
        end = i + SWEEP
        rows = A[i:end]
        if A.row == 1:  # tiles read a few elements of each column, which the CPU does not prefetch
            columns = rows.T
            for k in range(columns.rows):
                prefetch(columns[k])
        _by_panels(C[i:end], left_operand(room, rows), B, P[i:end], Q[i:end])


@device
def multiply_add_streamed(C, A, B, P, Q, rooms, sums):
    """C = A B + P + Q, packing B into the first of the `rooms` as many rows at a time as fit; the second is for rows of
    A. Unless `sums` is empty, the sums of B's columns are added to it."""
    nothing, (room, left_room) = nothing_like(C), rooms
    depth = room.rows * per_word(room)
    for k in range(0, B.rows, depth):
        end = k + depth
        piece = B[k:end]
        packed = room[: words(piece.rows, room), : piece.columns]
        pack(packed, piece)
        if sums.size > 0:
            add_sums(packed, sums, piece)
        if k == 0:
            multiply_add(C, A[:, k:end], packed, P, Q, left_room)
        else:
            multiply_add(C, A[:, k:end], packed, C, nothing, left_room)
