"""Softmax, cross-entropy and its gradient: some rows of logits to a thread, visited while they are in the cache."""

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
from ._simd.views import row_of

# Of short rows several are taken together, pass by pass, so that what one waits for, its largest, its sum, a quotient,
# others fill. A row's last vector is a partial one; to load from where such a one was just stored the CPU waits until
# it has left for the cache. So the row that begins there is not the next: they come in steps of STEP.
ROWS, STEP = 16, 5
SHORT = 1024  # elements; longer ones are taken one by one, for a second visit is to find them in the cache


@implements(contract.cross_entropy)
def cross_entropy(losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0) -> None:
    # (N,V), (N,) -> (N,), (N,V)
    _cross_entropy(
        losses, logits if dlogits is None else dlogits, dlogits is not None, logits, targets, scale,
        ROWS if logits.shape[1] <= SHORT else 1, scratch("rows", thread_count() * ROWS, logits.dtype),
    )  # fmt: skip


@kernel()
def _cross_entropy(losses, dlogits, use_dlogits, logits, targets, scale, rows, numbers):
    N = len(losses)
    for block in numba.prange((N + rows - 1) // rows):
        first = block * rows
        _block(
            losses, dlogits, use_dlogits, logits, targets, scale, first, min(rows, N - first),
            numbers[numba.get_thread_id() * ROWS :],
        )  # fmt: skip


@device
def _block(losses, dlogits, use_dlogits, logits, targets, scale, first, rows, numbers):
    """So many rows; `numbers` holds one of each row, for the time being."""
    V, real = logits.shape[1], logits.dtype.type
    step = STEP if rows == ROWS else 1
    for r in range(rows):
        n = first + r
        numbers[r] = maximum(row_of(logits, n * V, V))
        losses[n] = logits[n, targets[n]] - numbers[r]  # read before dlogits, which may be logits, is written
    for i in range(rows):
        r = i * step % ROWS
        at = (first + r) * V
        if use_dlogits:
            numbers[r] = exp_into(row_of(dlogits, at, V), row_of(logits, at, V), real(1), numbers[r])
        else:
            numbers[r] = exp_sum(row_of(logits, at, V), real(1), numbers[r])
    for r in range(rows):
        n = first + r
        losses[n] = real(math.log(numbers[r])) - losses[n]
        numbers[r] = real(scale) / numbers[r]
    if use_dlogits:
        for i in range(rows):
            r = i * step % ROWS
            n = first + r
            scale_row(row_of(dlogits, n * V, V), numbers[r])
            dlogits[n, targets[n]] -= real(scale)
