"""Detecting losses that stand out from those before them."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECAY = 0.98  # the average covers about fifty steps
SETTLED = 50  # steps before any loss counts as a spike
DEVIATIONS = 8.0
SHARE = 0.2  # of the average, since small losses vary by more than their deviation suggests


@dataclass
class Spikes:
    """Running averages of the loss and of its variance. They are part of a checkpoint."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def look(self, loss: float) -> float | None:
        """Add the loss of a step; return the average before it if the loss is far above, else None."""
        usual, distance = self.mean, loss - self.mean
        limit = max(DEVIATIONS * math.sqrt(self.variance), SHARE * abs(usual))
        spike = self.count >= SETTLED and distance > limit
        self.count += 1
        weight = max(1.0 - DECAY, 1.0 / self.count)
        if spike:
            distance = limit  # one spike must not hide the next
        self.mean += weight * distance
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance)
        return usual if spike else None
