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

    # softmax(logits) = exp(logits) / sum exp(logits) does not change when a number is taken from all logits of a row;
    # taking the largest keeps exp from overflowing.
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1)

    # loss = -log softmax(logits)[target] = log sum exp(logits) - logits[target]
    losses[...] = np.log(total) - shifted[rows, targets]

    if dlogits is not None:
        # forward: loss = log sum_v exp(logits[v]) - logits[target];  the derivative by logits[v] of the first term is
        # exp(logits[v]) / sum = softmax, of the second -1 at the target. Going against it, probability moves there.
        gradient = exponentials / total[:, None]
        gradient[rows, targets] -= 1
        dlogits[...] = gradient * scale
