"""The learning rate over a run: linear warmup, then half a cosine down (Loshchilov & Hutter 2017, eq. 5)."""

from __future__ import annotations

import math


def learning_rate(step: int, *, steps: int, lr: float, min_lr: float, warmup: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 1 to `steps`.

    It rises to `lr` at step `warmup` and falls to `min_lr` at the last step. In a run shorter than its warmup it only
    rises.
    """
    if step <= warmup:
        return lr * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return min_lr + 0.5 * (lr - min_lr) * (1.0 + math.cos(math.pi * progress))
