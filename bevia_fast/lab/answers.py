"""What an experiment says: which learning rate suits each arm, and whether the arms differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The 97.5 % quantile of Student's t distribution, by degrees of freedom: n seeds leave n - 1
QUANTILES = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL = 1.960  # with many seeds
NATS = "nats per character"  # the unit of losses, unless an experiment says otherwise

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """How much higher the loss of an arm is than that of the first arm, in nats, paired by seed.

    `margin`: half of the 95 % confidence interval; infinite with one seed.
    """

    arm: str
    rate: float  # the learning rate that suits this arm best
    loss: float  # the mean over the seeds; infinite if a run diverged
    mean: float
    margin: float

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.mean) > self.margin or math.isinf(self.loss)


def loss_of(cell: Cell) -> float:
    """The validation loss at the end; infinite if the run diverged."""
    return math.inf if cell["val_loss"] is None else float(cell["val_loss"])


def losses(cells: Sequence[Cell], arm: str, rate: float) -> dict[int, float]:
    """The loss of each seed."""
    return {cell["seed"]: loss_of(cell) for cell in cells if cell["arm"] == arm and cell["rate"] == rate}


def best_rate(cells: Sequence[Cell], arm: str) -> float:
    """The learning rate with the lowest mean loss; of equal ones, the lowest rate."""
    rates = sorted({cell["rate"] for cell in cells if cell["arm"] == arm})
    return float(min(rates, key=lambda rate: mean(list(losses(cells, arm, rate).values()))))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.inf


def margin(values: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of the mean of `values`."""
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        return math.inf
    middle = mean(values)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1))
    return (QUANTILES[n - 1] if n <= len(QUANTILES) else NORMAL) * deviation / math.sqrt(n)


def differences(cells: Sequence[Cell], arms: Sequence[str]) -> list[Difference]:
    """Compare each arm, at the learning rate that suits it best, with the first one at its own best rate."""
    found = []
    reference = losses(cells, arms[0], best_rate(cells, arms[0]))
    for arm in arms:
        rate = best_rate(cells, arm)
        own = losses(cells, arm, rate)
        pairs = [own[seed] - reference[seed] for seed in sorted(own.keys() & reference.keys())]
        finite = all(map(math.isfinite, pairs))
        apart = mean(pairs) if finite else math.inf
        found.append(Difference(arm, rate, mean(list(own.values())), apart, margin(pairs)))
    return found


def sentence(cells: Sequence[Cell], arms: Sequence[str], steps: int, unit: str = NATS) -> str:
    """Return the answer in words; `unit` is that of the losses."""
    first, *others = differences(cells, arms)
    seeds = len({cell["seed"] for cell in cells})
    said = [f"*{first.arm}* {first.loss:.3f}" if math.isfinite(first.loss) else f"*{first.arm}* diverged"]
    for other in others:
        if math.isinf(other.loss):
            said.append(f"*{other.arm}* diverged at every learning rate")
        else:
            said.append(f"*{other.arm}* {other.loss:.3f} ({apart(other)})")
    paired = f"{seeds} seeds, paired; ± is the 95 % confidence interval" if seeds > 1 else "one seed"
    return (
        f"The validation loss after {steps:,} steps, in {unit}: {'; '.join(said)}. Each arm has the "
        f"learning rate that suits it best ({paired})."
    )


def apart(other: Difference) -> str:
    """Return the size of a difference, and whether it is one."""
    if math.isinf(other.margin):
        return f"{other.mean:+.3f}, but one seed says little"
    return f"{other.mean:+.3f} ± {other.margin:.3f}{'' if other.differs else ': no difference'}"
