"""Drawing a token from logits.

The likeliest tokens are taken off a heap, one after the other, until the drawn one is found. Few are needed as a rule,
and for a large vocabulary sorting them all would take longer than everything else.
"""

from __future__ import annotations

import math

import numpy as np

from .. import contract
from ..contract import Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._simd.views import whole
from .dropout import row_hash


@implements(contract.sample_token)
def sample_token(logits: Array, *, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    # (V,) -> a token
    heap, weights = scratch("heap", logits.size, np.dtype(np.int64)), scratch("weights", logits.size, np.dtype(float))
    return int(_draw(logits, heap, weights, float(temperature), int(top_k), float(top_p), float(noise)))


@kernel(parallel=False)
def _draw(logits, heap, weights, temperature, top_k, top_p, noise):
    return draw(whole(logits), whole(heap), whole(weights), temperature, top_k, top_p, noise)


@device
def uniform(key, index):
    """A number in [0, 1) with 53 random bits, as `kernels.rng.uniform` computes it."""
    return np.float64(row_hash(key, index) >> np.uint64(11)) / np.float64(1 << 53)


@device
def draw(logits, heap, weights, temperature, top_k, top_p, noise):
    """A token, or -1 if a logit is not finite. `heap` and `weights` have room for as many elements as `logits`."""
    best, V = 0, logits.size
    for v in range(V):
        if not math.isfinite(logits[v]):
            return -1
        if logits[v] > logits[best]:
            best = v
    if temperature == 0:
        return best

    # softmax without its division: what counts is each weight's share of the total.
    largest, total, left = np.float64(logits[best]), 0.0, V
    for v in range(V):
        heap[v] = v
        weights[v] = math.exp((np.float64(logits[v]) - largest) / temperature)
    for start in range(V // 2 - 1, -1, -1):
        _sink(heap[:V], start, logits)

    # Sums run in the order of `numpy_ref.sampling`. Tokens taken off the heap stand behind it, the likeliest last.
    if 0 < top_k < V:
        while V - left < top_k:
            left = _take(heap, left, logits)
        last = heap[left]
        for v in range(V):
            if v == last or _before(v, last, logits):
                total += weights[v]
    else:
        top_k = V
        for v in range(V):
            total += weights[v]
    if top_p < 1:
        limit, running, taken = top_p * total, 0.0, 0
        while taken < top_k and (taken == 0 or running < limit):
            if V - left == taken:
                left = _take(heap, left, logits)
            taken += 1
            running += weights[heap[V - taken]]
        total, top_k = running, taken
    limit, running = noise * total, 0.0
    for taken in range(1, top_k + 1):
        if V - left < taken:
            left = _take(heap, left, logits)
        running += weights[heap[V - taken]]
        if running > limit:
            break
    return heap[V - taken]


@device
def _before(a, b, logits):
    """Whether token a is likelier than token b; of equally likely ones the first comes first."""
    return logits[a] > logits[b] or (logits[a] == logits[b] and a < b)


@device
def _take(heap, left, logits):
    """Move the likeliest of the first `left` tokens behind the others; returns how many remain."""
    left -= 1
    heap[0], heap[left] = heap[left], heap[0]
    _sink(heap[:left], 0, logits)
    return left


@device
def _sink(heap, start, logits):
    """Let the token at `start` sink below those that are likelier."""
    token, child = heap[start], 2 * start + 1
    while child < heap.size:
        if child + 1 < heap.size and _before(heap[child + 1], heap[child], logits):
            child += 1
        if _before(token, heap[child], logits):
            break
        heap[start] = heap[child]
        start, child = child, 2 * child + 1
    heap[start] = token
