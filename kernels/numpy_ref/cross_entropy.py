"""Softmax, cross-entropy and its gradient."""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import Array, implements


@implements(contract.cross_entropy)
def cross_entropy(
    losses: Array, dlogits: Array | None, logits: Array, targets: Array, *, scale: float = 1.0
) -> None:
    # (N,V), (N,) -> losses (N,), dlogits (N,V)
    rows = np.arange(len(targets))

    # softmax(logits) = exp(logits) / sum exp(logits) does not change if a constant is subtracted from a row of logits.
    # Subtracting the row maximum keeps exp from overflowing.
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1)

    # loss = -log softmax(logits)[target] = log sum exp(logits) - logits[target]
    losses[...] = np.log(total) - shifted[rows, targets]

    if dlogits is not None:
        # forward: loss = log sum_v exp(logits[v]) - logits[target].  The derivative of the first term with respect to
        # logits[v] is exp(logits[v]) / sum = softmax(logits)[v]; that of the second is -1 at the target, 0 elsewhere.
        gradient = exponentials / total[:, None]
        gradient[rows, targets] -= 1
        dlogits[...] = gradient * scale
