"""The forecast of a run whose windows grow; see `stages`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..config import ModelConfig, TrainConfig
from ..kernels.contract import Backend
from ..model.activations import LONG
from .forecast import Forecast
from .rehearsal import Call, Rehearsed


class StagedForecast:
    """Predicts the steps of all stages. From a context of LONG dim on, layers keep less and call other kernels, so a
    schedule that crosses that length needs a forecast on each side of it."""

    def __init__(self, config: TrainConfig, model: ModelConfig, backend: Backend) -> None:
        self.limit = LONG * model.dim
        self.whole = Forecast(model, config.batch, backend, config.optimizer)
        self.short = self.whole
        below = [stage for stage in config.stages if stage.ctx < self.limit <= model.ctx]
        if below:
            longest = below[-1]
            self.short = Forecast(replace(model, ctx=longest.ctx), longest.batch, backend, config.optimizer)

    def seconds(self, rehearsed: Rehearsed) -> float:
        """Return the expected seconds of one optimizer step."""
        forecast = self.short if rehearsed.activations.shape[1] < self.limit else self.whole
        return forecast.seconds(rehearsed)

    def seconds_of(self, calls: Sequence[tuple[Call, int]]) -> float:
        """Return the expected seconds of calls on the whole context."""
        return self.whole.seconds_of(calls)
