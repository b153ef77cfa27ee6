"""Sampling: draw a token from the softmax of its logits."""

from __future__ import annotations

import math

import numpy as np

from .. import contract
from ..contract import Array, implements


@implements(contract.sample_token)
def sample_token(logits: Array, *, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    # (V,) -> a token
    if not np.isfinite(logits).all():
        return -1
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")[: top_k or None]  # likeliest first

    # The weights of a softmax, without the division by their total: only each weight's share of it counts.
    with np.errstate(over="ignore"):  # with a tiny temperature, all but the largest are exp(-inf) = 0
        scores = (logits.astype(np.float64) - float(logits.max())) / temperature
    weights = np.zeros(logits.size)
    weights[order] = [math.exp(score) for score in scores[order]]  # the exp of the compiled path, to the last bit

    # Both paths add in the same order: cumsum adds one by one, where sum would add pairwise.
    total = np.cumsum(weights)[-1]
    running = np.cumsum(weights[order])
    if top_p < 1:
        kept = min(int(np.searchsorted(running, top_p * total)), running.size - 1)
        total = running[kept]
    drawn = min(int(np.searchsorted(running, noise * total, side="right")), running.size - 1)
    return int(order[drawn])
