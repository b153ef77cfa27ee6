"""Where dropout masks come from. No mask is stored: each is a pure function of the seed, the step and the place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..kernels.rng import from_row, stream_key
from ..kernels.tape import Keys


@dataclass(frozen=True)
class DropoutStream:
    """The dropout masks of one forward and backward pass: a pure function of (seed, step)."""

    seed: int
    step: int  # counts micro-batches, so that accumulated ones differ

    def key(self, place: str, layer: int = 0, row: int = 0) -> int:
        """Return the key of the mask at a place of a layer, from row `row` of the batch on."""
        return from_row(stream_key(self.seed, place, self.step, layer), row)


class LayerDropout:
    """The dropout of one layer in one pass, by place. Nothing is dropped if `keys` is None."""

    def __init__(self, keys: Keys | None, layer: int, rate: float) -> None:
        self._keys, self._layer, self.rate = keys, layer, rate

    def attention(self) -> dict[str, Any]:
        """Return the options of the attention kernels."""
        if self._keys is None:
            return {"dropout_rate": 0.0, "dropout_key": 0}
        return {"dropout_rate": self.rate, "dropout_key": self._keys.key("attention dropout", self._layer)}

    def attention_residual(self, row: int) -> int | None:
        """Return the key of the mask of attention's output from row `row` of the batch on, or None."""
        return self._keys.key("attention residual dropout", self._layer, row) if self._keys else None

    def mlp_residual(self, row: int) -> int | None:
        """Return the key of the mask of the MLP's output from row `row` of the batch on, or None."""
        return self._keys.key("mlp residual dropout", self._layer, row) if self._keys else None
