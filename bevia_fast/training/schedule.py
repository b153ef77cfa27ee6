"""The learning rate schedule: linear warmup, then cosine decay (Loshchilov & Hutter 2017, eq. 5)."""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, lr: float, min_lr: float, warmup: int) -> float:
    """Return the learning rate of optimizer step `step`, which counts from 1 to `steps`.

    It rises to `lr` at step `warmup` and falls to `min_lr` at the last step. A run shorter than its warmup only rises.
    """
    if step <= warmup:
        return lr * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return min_lr + 0.5 * (lr - min_lr) * (1.0 + math.cos(math.pi * progress))
