"""Right operands of a product, packed into panels: [panel][k][NR columns], zeros beyond the last column.

The loop over k of a register tile then reads one stream of whole vectors, whatever the operand's layout was.
"""

from __future__ import annotations

from .._jit import device

BLOCK = 16  # side of the squares in which a transposed operand is read: so many cache lines stay open at once


@device
def pack_panel(panels, start, NR, B, b, b_k, b_column, K, columns):
    """panels[start + k NR + j] = B[b + k b_k + j b_column] for k < K and j < columns; 0 for columns <= j < NR"""
    if columns < NR:
        for k in range(K):
            for j in range(columns, NR):
                panels[start + k * NR + j] = 0
    if b_column == 1:
        for k in range(K):
            for j in range(columns):
                panels[start + k * NR + j] = B[b + k * b_k + j]
    else:
        for k0 in range(0, K, BLOCK):
            for j in range(columns):
                for k in range(k0, min(K, k0 + BLOCK)):
                    panels[start + k * NR + j] = B[b + k * b_k + j * b_column]
