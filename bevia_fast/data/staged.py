"""The batches of a run whose windows grow; see `stages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ..kernels.rng import mix64
from ..stages import Stage
from .corpus import ORDER, Batches, Tokens

Array = NDArray[Any]


class StagedBatches:
    """The training batches of all stages: `batches[i]` is (tokens, targets), both (B, T) int32 of the stage of batch i.

    Each stage begins with an epoch of its own, which visits each of its windows once, and draws its orders from a seed
    of its own. So a batch is a pure function of (seed, i) here too, and a run with one stage has the batches of
    `Batches`.
    """

    def __init__(
        self, tokens: Tokens | Array, stages: Sequence[Stage], accumulate: int, seed: int, order: int = ORDER
    ) -> None:
        self._starts = [(stage.first - 1) * accumulate for stage in stages]
        seeds = [seed if number == 0 else mix64(mix64(seed) + number) for number in range(len(stages))]
        self._parts = [
            Batches(tokens, stage.ctx, stage.batch, own, order) for stage, own in zip(stages, seeds, strict=True)
        ]

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        number = max(number for number, start in enumerate(self._starts) if start <= index)
        return self._parts[number][index - self._starts[number]]
