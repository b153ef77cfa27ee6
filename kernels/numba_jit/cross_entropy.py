"""Softmax, cross-entropy and its gradient. The threads share the rows; a row is revisited while it is in the cache."""

from __future__ import annotations

import math

import numba

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.threads import thread_count
from ._simd.elementwise import scale as scale_row
from ._simd.reductions import maximum
from ._simd.softmax import exp_into, exp_sum
from ._simd.views import whole
from .linear import absent

# Short rows are taken ROWS at a time, pass by pass: while one row's maximum, sum or quotient is awaited, the CPU works
# on the others. A row's last vector is partial, and the row after it begins in the same vector; loading from what was
# just stored in part waits for the store to reach the cache. So the rows are visited in steps of STEP.
ROWS, STEP = 16, 5
SHORT = 1024  # elements; a longer row is taken alone, so that each visit finds it in the cache


@implements(contract.cross_entropy)
def cross_entropy(losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0) -> None:
    # (N,V), (N,) -> losses (N,), dlogits (N,V)
    dtype = logits.dtype
    _cross_entropy(
        losses, absent(dtype, 2) if dlogits is None else dlogits, logits, targets, scale,
        ROWS if logits.shape[1] <= SHORT else 1, scratch("rows", thread_count() * ROWS, dtype),
    )  # fmt: skip


@kernel()
def _cross_entropy(losses, dlogits, logits, targets, scale, rows, memory):
    real = logits.dtype.type
    for block in numba.prange((len(losses) + rows - 1) // rows):
        part, thread = slice(block * rows, (block + 1) * rows), numba.get_thread_id()
        _rows(
            whole(losses)[part], whole(dlogits)[part], whole(logits)[part], whole(targets)[part], real(scale),
            whole(memory)[thread * ROWS : (thread + 1) * ROWS],
        )  # fmt: skip


@device
def _rows(losses, dlogits, logits, targets, scale, memory):
    """Up to ROWS rows."""
    rows, real, use_dlogits = logits.rows, logits.dtype.type, dlogits.rows > 0
    one, step = real(1), STEP if rows == ROWS else 1
    largest = total = factor = memory

    # shifted = logits - largest;  that of the target is kept in `losses`, because dlogits may be logits
    for n in range(rows):
        largest[n] = maximum(logits[n])
        losses[n] = logits[n][targets[n]] - largest[n]

    # total = sum_v exp(shifted)
    for i in range(rows):
        n = i * step % ROWS
        if use_dlogits:
            total[n] = exp_into(dlogits[n], logits[n], one, largest[n])
        else:
            total[n] = exp_sum(logits[n], one, largest[n])

    # loss = log(total) - shifted[target]
    for n in range(rows):
        losses[n] = real(math.log(total[n])) - losses[n]
        factor[n] = scale / total[n]

    # dlogits = (exp(shifted) / total - onehot(target)) * scale = exp(shifted) * factor - onehot(target) * scale
    if use_dlogits:
        for i in range(rows):
            n = i * step % ROWS
            scale_row(dlogits[n], factor[n])
            dlogits[n][targets[n]] -= scale
