"""The parts that the training steps of all competitors share: the batch, the learning rate, and how they are called.

This module imports only the standard library, because the interpreter of a peer has no other dependency of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEARNING_RATE = 1e-4  # small, because the same batch is repeated thousands of times


@dataclass
class Step:
    """The training step of a competitor."""

    run: Callable[[], None]
    # returns loss and gradients by name, with the initial weights, of another batch than `run` uses: (B, T) tokens
    check: Callable[[tuple[int, int]], dict[str, Any]]
    weights: dict[str, Any]  # the initial ones, by name


def random_batch(seed: int, shape: tuple[int, int], vocab: int) -> Any:
    """Return random tokens and targets below `vocab`, as one int32 array (2, B, T)."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, vocab, (2, *shape), dtype=np.int32)
