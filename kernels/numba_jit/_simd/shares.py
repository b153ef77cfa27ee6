"""A linear layer's product Y = X W + bias + addend, split among the threads as `product_plan` says.

Each thread computes some blocks of Y. All threads pack W together beforehand, or each thread packs all of W for itself,
or it packs W piece by piece as it goes. Each element of Y is the same sum in the same order in all three cases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba

from .._runtime.jit import device
from .blocks import block_rows, multiply_add, multiply_add_streamed
from .packing import pack
from .product_plan import ALONE, STREAMED
from .views import nothing_like, panels, repeated, row_of


class Product(NamedTuple):
    """Y = X W + bias + addend, as views; `bias` and `addend` are empty where there is none."""

    Y: Any
    X: Any
    W: Any
    bias: Any
    addend: Any


class ProductMemory(NamedTuple):
    """The working memory of a product: of all threads, or shared by them."""

    panels: Any  # for the right operand
    left: Any  # for rows of the left one, if they are packed; see `word_rows.left_operand`


@device
def panels_for(memory, columns, plan):
    """The panels of a right operand with the given number of columns, for the calling thread to fill or to use."""
    at = numba.get_thread_id() * plan.part
    return panels(memory.panels, at, plan.depth, min(plan.width, columns), plan.NR, plan.multiply)


@device
def left_room(memory, plan):
    """Where the calling thread packs rows of left operands."""
    return row_of(memory.left, numba.get_thread_id() * plan.left, plan.left)


@device
def pack_share(share, shares, W, memory, plan):
    """Pack some panels of a right operand, of which other threads pack the rest."""
    first, last = block_rows(share, shares, W.columns, plan.NR)
    pack(panels_for(memory, W.columns, plan)[:, first:last], W[:, first:last])


def make_product_share(finish: Any) -> Any:
    """Make the function that computes some blocks of a product.

    After each block, while it is in the cache, it calls finish(layer, first, last, start, stop) with the block's rows
    first:last and columns start:stop.
    """

    @device
    def product_share(share, shares, product, layer, memory, plan):
        Y, X, W = product.Y, product.X, product.W
        packed, room = panels_for(memory, W.columns, plan), left_room(memory, plan)
        if plan.packing == ALONE:
            pack(packed, W)
        blocks = plan.row_blocks * plan.column_blocks
        for block in range(share * blocks // shares, (share + 1) * blocks // shares):
            first, last = block_rows(block // plan.column_blocks, plan.row_blocks, X.rows, plan.MR)
            start, end = block_rows(block % plan.column_blocks, plan.column_blocks, W.columns, plan.NR)
            for j in range(start, end, plan.width):
                stop = min(end, j + plan.width)
                y = Y[first:last, j:stop]
                bias, addend = nothing_like(y), nothing_like(y)
                if product.bias.size > 0:
                    bias = repeated(product.bias[j:stop], y.rows)
                if product.addend.rows > 0:
                    addend = product.addend[first:last, j:stop]
                if plan.packing == STREAMED:
                    rooms, no_sums = (packed, room), product.bias[:0]
                    multiply_add_streamed(y, X[first:last], W[:, j:stop], bias, addend, rooms, no_sums)
                else:
                    multiply_add(y, X[first:last], packed[:, j:stop], bias, addend, room)
                finish(layer, first, last, j, stop)

    return product_share
