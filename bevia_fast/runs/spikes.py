"""Detect losses that stand out from those of the steps before."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.98  # of the running average per step; it covers about the last 50 steps
SETTLED = 50  # steps before a loss can count as a spike
DEVIATIONS = 8.0  # a spike exceeds the average by this many standard deviations
SHARE = 0.2  # and by this share of the average, because small losses vary by more than their deviation suggests


@dataclass
class Spikes:
    """The running mean and variance of the loss. They are saved in checkpoints, like the weights."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, loss: float) -> float | None:
        """Add the loss of a step. Return the average before it if this loss is a spike, else None."""
        usual, distance = self.mean, loss - self.mean
        limit = max(DEVIATIONS * math.sqrt(self.variance), SHARE * abs(usual))
        spike = self.count >= SETTLED and distance > limit
        self.count += 1
        weight = max(1.0 - DECAY, 1.0 / self.count)
        if spike:
            distance = limit  # so that one spike does not hide the next
        self.mean += weight * distance
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance)
        return usual if spike else None
