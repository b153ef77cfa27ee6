"""Softmax, cross-entropy and its gradient: a row of logits to a thread, in one visit while the row is in the cache."""

from __future__ import annotations

import math

import numba

from .. import contract
from ..contract import Array, implements
from ._jit import kernel
from ._simd.softmax_spans import exp_span, exp_sum_span, max_span
from ._simd.spans import scale_span


@implements(contract.cross_entropy)
def cross_entropy(losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0) -> None:
    # (N,V), (N,) -> (N,), (N,V)
    _cross_entropy(losses, logits if dlogits is None else dlogits, dlogits is not None, logits, targets, scale)


@kernel()
def _cross_entropy(losses, dlogits, use_dlogits, logits, targets, scale):
    N, V = logits.shape
    real = logits.dtype.type
    for n in numba.prange(N):
        largest = max_span(logits, n * V, V)
        wanted = logits[n, targets[n]] - largest  # read before dlogits, which may be logits, is written
        if use_dlogits:
            total = exp_span(dlogits, n * V, logits, n * V, V, real(1), largest)
            scale_span(dlogits, n * V, V, real(scale) / total)
            dlogits[n, targets[n]] -= real(scale)
        else:
            total = exp_sum_span(logits, n * V, V, real(1), largest)
        losses[n] = real(math.log(total)) - wanted
