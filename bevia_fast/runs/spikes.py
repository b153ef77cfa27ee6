"""Which losses stand out from those before them."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.98  # the average looks back over about fifty steps
SETTLED = 50  # steps before anything is called a spike
DEVIATIONS = 8.0
SHARE = 0.2  # of the average; small losses wander by more than their deviation says


@dataclass
class Spikes:
    """A running average of the loss, and of how far losses lie from it. Belongs to a checkpoint, as the weights do."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def look(self, loss: float) -> float | None:
        """Take in the loss of a step; returns what was usual before if this one is far above it."""
        usual, distance = self.mean, loss - self.mean
        limit = max(DEVIATIONS * math.sqrt(self.variance), SHARE * abs(usual))
        spike = self.count >= SETTLED and distance > limit
        self.count += 1
        weight = max(1.0 - DECAY, 1.0 / self.count)
        if spike:
            distance = limit  # so that one step does not hide the next
        self.mean += weight * distance
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance)
        return usual if spike else None
