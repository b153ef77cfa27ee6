"""Rotary position embedding: the queries and keys of each position are rotated in place; see `numpy_ref.rotary`."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import kernel
from ._simd.rotation import rotate
from ._simd.views import whole


@implements(contract.rotary_forward)
def rotary_forward(qkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place
    _rotate(qkv, cosines, sines, 1)


@implements(contract.rotary_backward)
def rotary_backward(dqkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place, by the negative angles
    _rotate(dqkv, cosines, sines, -1)


@kernel()
def _rotate(qkv, cosines, sines, direction):
    B, T, width = qkv.shape
    for n in numba.prange(B * T):
        # q and k of all heads are two thirds of a row
        row = whole(qkv)[n]
        rotate(row[: width // 3 * 2], whole(cosines)[n % T], whole(sines)[n % T], row.dtype.type(direction))
