"""Products that are symmetric, such as X X^T: computed up to the diagonal, and mirrored."""

from __future__ import annotations

from .._runtime.jit import device
from .packing import copy_square, pack
from .product_plan import SWEEP
from .tiles import lanes_of, product
from .views import nothing_like, panel


@device
def multiply_symmetric(C, A, B):
    """C = A B with B packed, for a symmetric C whose rows have room up to the next whole vector"""
    add_up_to_diagonal(C, A, B, False)
    mirror(C)


@device
def multiply_symmetric_streamed(C, A, B, room):
    """The same for an unpacked B, which is packed into `room` as many rows at a time as fit."""
    for k in range(0, B.rows, room.rows):
        end = k + room.rows
        piece = B[k:end]
        packed = room[: piece.rows, : piece.columns]
        pack(packed, piece)
        add_up_to_diagonal(C, A[:, k:end], packed, k > 0)
    mirror(C)


@device
def add_up_to_diagonal(C, A, B, begun):
    """C += A B if C has `begun`, else C = A B, up to the diagonal of C, rounded up to whole vectors."""
    lanes, nothing = lanes_of(C), nothing_like(C)
    for first in range(0, C.rows, SWEEP):
        last = min(C.rows, first + SWEEP)
        for j in range(0, last, B.width):
            B_panel, i = panel(B, j), max(first, j)
            while i < last:  # one more vector of columns for each square on the diagonal
                columns = min(B.width, i - j + lanes)
                end = last if columns == B.width else min(last, i + lanes)
                part = C[i:end, j : j + columns]
                product(B.multiply, part, A[i:end], B_panel, part if begun else nothing, nothing)
                i = end


@device
def mirror(C):
    """Copy what is below the diagonal to above it, square by square; whole vectors are written."""
    side = lanes_of(C)
    for i in range(0, C.rows, side):
        for j in range(i + side, C.columns, side):
            copy_square(C[i : i + side, j : j + side], C[j : j + side, i : i + side].T)
