"""Rotary position embedding (Su et al. 2021, RoFormer, arXiv:2104.09864, section 3.2.2 and eq. 34).

Attention alone does not know where a key stands: it is a weighted mean, whatever the order. Instead of adding a learned
vector for each position to the stream, each pair of channels of a query or key is taken as a point in the plane and
turned by an angle that is proportional to its position. A turn by m and a turn by n leave a dot product that depends on
m - n alone. So a score knows how far away a key is, not where both stand, and a key in a cache stays right forever.

The pairs turn at different speeds, from one radian per position to one in 10,000: the fast ones tell neighbors apart,
the slow ones far from near. Channel i is paired with channel i + HS/2, as in GPT-NeoX (Black et al. 2022); the paper
pairs neighbors, which is the same up to the order of the channels.
"""

from __future__ import annotations

from .. import contract
from ..contract import Array, implements


@implements(contract.rotary_forward)
def rotary_forward(qkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place
    rotate(_pairs(qkv, cosines), cosines[:, None], sines[:, None])


@implements(contract.rotary_backward)
def rotary_backward(dqkv: Array, cosines: Array, sines: Array) -> None:
    # (B,T,3C), in place
    # forward: a rotation, whose transpose is the rotation back: with the coordinates exchanged, left is right
    rotate(_pairs(dqkv, cosines)[..., ::-1, :], cosines[:, None], sines[:, None])


def rotate(pairs: Array, cosines: Array, sines: Array) -> None:
    """Rotate points in place: pairs (...,2,H) holds their first and their second coordinates."""
    first, second = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
    pairs[..., 0, :] = first * cosines - second * sines
    pairs[..., 1, :] = second * cosines + first * sines


def _pairs(qkv: Array, cosines: Array) -> Array:
    """The queries and keys of all heads, but not the values: a view (B,T,2*NH,2,H)."""
    B, T, width = qkv.shape
    return qkv[:, :, : width // 3 * 2].reshape(B, T, -1, 2, cosines.shape[1])
