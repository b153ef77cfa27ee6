"""Products in bfloat16: which operands are rounded, how, and a backend that does so in all of its products.

bfloat16 is a float32 without the last 16 bits of its significand: the same exponents, so the same range, and 8
significant bits. CPUs with instructions for it multiply twice as many of its numbers at a time.

With `precision="bf16"`, an operation rounds both operands of each of its matrix products to the nearest bfloat16, ties
to even, and nothing else. The products of two such numbers are exact in float32, and float32 adds them up. All arrays
of the call are float32. What the operands are is written here, once:

    linear_forward      inp and weight
    linear_backward     dout and weight of dinp;  inp and dout of dweight.  dbias is a sum of dout as it is
    attention_forward   q and k of the scores;  v, and exp(scores - center), which is dropped out before it is rounded.
                        `center` is any whole multiple of log 2: from one to another, exponentials change by a power of
                        2, and round alike, whichever keys are seen first. The total that divides the output is the sum
                        before rounding.
    attention_backward  as in the forward pass;  dout and v of dweights;  weights = exp(scores - lse), dropped out, and
                        dout of dv;  dscores / sqrt(HS) with k of dq, and with q of dk.  row_sum is of dout as it is
    attention_weights   q and k of the scores
    decode_tokens       the rows of activations that weights or `head` multiply;  queries, and exponentials as in the
                        forward pass.  Weights of products, `head`, and the keys and values in the caches are given and
                        kept in bfloat16, as uint16: half the bytes to read. Embeddings, biases and gains are as ever

Rotations come before rounding. NaN stays NaN, infinities and signs of zero stay, and numbers beyond the largest
bfloat16 become infinite, 3.4e38. Numbers below 2^-126 may become 0, and so may such sums: some CPUs do that.
"""

from __future__ import annotations

import functools
from typing import cast

import numpy as np

from .contract import OPERATIONS, Array, Backend, Precision


def rounded(x: Array) -> Array:
    """Return float32 numbers rounded to the nearest bfloat16, ties to even, as a new float32 array."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    # Half a unit of the last place that is kept, less one bit if that place is even; then all further places are cut.
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    # the sum would carry some NaNs into infinity or zero: their top bit is set instead
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    result: Array = np.where(is_nan, (bits | 0x00400000) & 0xFFFF0000, nearest).astype(np.uint32).view(np.float32)
    return result.reshape(np.shape(x))


def halves(x: Array) -> Array:
    """Return float32 numbers, rounded to bfloat16, as new uint16: the first halves of their bits."""
    return (rounded(x).view(np.uint32) >> 16).astype(np.uint16)


def widened(x: Array) -> Array:
    """Return the float32 numbers of which `halves` made x."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def operand(x: Array, precision: Precision) -> Array:
    """Return an operand of a product as `precision` has it."""
    return rounded(x) if precision == "bf16" else x


def has_precision(operation: str) -> bool:
    """Whether an operation has products whose operands can be rounded."""
    return "precision" in OPERATIONS[operation].signature.parameters


class AtPrecision:
    """A backend whose operations round the operands of their products, whoever calls them."""

    def __init__(self, backend: Backend, precision: Precision) -> None:
        self.exact, self.precision, self.name = backend, precision, backend.name
        for operation in OPERATIONS:
            function = getattr(backend, operation)
            if has_precision(operation):
                function = functools.partial(function, precision=precision)
            setattr(self, operation, function)
        for optional in ("launches", "conditions", "play"):  # see `Backend`
            if hasattr(backend, optional):
                setattr(self, optional, getattr(backend, optional))


def at_precision(backend: Backend, precision: Precision) -> Backend:
    """Return a backend with products in that precision; `backend` itself for "float32", which is its own."""
    return backend if precision == "float32" else cast(Backend, AtPrecision(backend, precision))
