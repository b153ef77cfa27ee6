"""What every competitor's training step has in common: its batch, its learning rate, and how it is called.

Only the standard library is needed to import this, for a peer's interpreter has nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEARNING_RATE = 1e-4  # small: the same batch comes thousands of times


@dataclass
class Step:
    """A training step of some competitor."""

    run: Callable[[], None]
    # loss and gradients by name, of a batch of (B, T) tokens, with the initial weights; not that of `run`
    check: Callable[[tuple[int, int]], dict[str, Any]]
    weights: dict[str, Any]  # the initial ones, by name


def random_batch(seed: int, shape: tuple[int, int], vocab: int) -> Any:
    """Tokens and targets, as int32 (2, B, T)."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, vocab, (2, *shape), dtype=np.int32)
