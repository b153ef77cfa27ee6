"""Where dropout's masks come from: no mask is stored, each is a pure function of the seed, the step and the place."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels.rng import from_row, stream_key


@dataclass(frozen=True)
class DropoutStream:
    """The dropout masks of one forward and backward pass, a pure function of (seed, step)."""

    seed: int
    step: int  # counts micro-batches, so that accumulated ones differ

    def key(self, place: str, layer: int = 0, row: int = 0) -> int:
        """Return the key of the mask at a place of a layer, from row `row` of the batch on."""
        return from_row(stream_key(self.seed, place, self.step, layer), row)
