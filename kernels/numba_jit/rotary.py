"""Rotary position embedding: the queries and keys of each position are rotated in place; see `numpy_ref.rotary`."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._simd.rotation import rotate
from ._simd.views import whole


@implements(contract.rotary_forward)
def rotary_forward(qkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place
    _rotate(qkv, cosines, sines, False)


@implements(contract.rotary_backward)
def rotary_backward(dqkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place, by the negative angles
    _rotate(dqkv, cosines, sines, True)


@kernel()
def _rotate(qkv, cosines, sines, back):
    B, T, _ = qkv.shape
    for n in numba.prange(B * T):
        _rotate_row(whole(qkv)[n], whole(cosines)[n % T], whole(sines)[n % T], back)


@device
def _rotate_row(row, cosines, sines, back):
    """Rotate the queries and keys of a position, head by head; the values are the last third of the row."""
    H = cosines.size
    for start in range(0, row.size // 3 * 2, 2 * H):
        first, second = row[start : start + H], row[start + H : start + 2 * H]
        if back:
            rotate(second, first, cosines, sines)
        else:
            rotate(first, second, cosines, sines)
