"""What a run will take, before it takes it: memory by what it is for, arithmetic, time, the largest context."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..backends import describe_backend, open_backend
from ..config import ModelConfig, TrainConfig
from ..data.corpus import TRAINING_SHARE
from ..data.tokenfile import coded_text
from ..machine import available_bytes, resident_bytes
from ..model.parameters import parameter_specs
from ..reporter import Progress
from ..runs.checkpoint import newest_good, refuse_changes
from .forecast import Forecast, products
from .memory import Memory, largest_ctx, training_memory
from .rehearsal import rehearse


@dataclass(frozen=True)
class Way:
    """One of the two ways to train: with --recompute, and without."""

    recompute: bool
    memory: Memory
    flops: float  # of a step's matrix products, with those that are computed again
    ms: float  # of a step
    fits: bool | None  # None: the system does not say how much memory is free
    largest_ctx: int | None  # all else equal


@dataclass(frozen=True)
class Plan:
    """What `bevia-fast plan` says. Sizes in bytes."""

    config: TrainConfig
    kernels: str
    characters: int
    vocabulary: int
    parameters: int
    available: int | None
    process: int  # what the process has without the model
    ways: tuple[Way, ...]

    @property
    def tokens(self) -> int:
        """That a step learns from."""
        return self.config.accumulate * self.config.batch * self.config.model.ctx

    @property
    def epochs(self) -> float:
        """How often the run sees the text."""
        return self.config.steps * self.tokens / (TRAINING_SHARE * self.characters)

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for one, way in zip(found["ways"], self.ways, strict=True):
            one["memory"]["total"] = way.memory.total
            one["seconds"] = way.ms / 1e3 * self.config.steps
        return {**found, "tokens": self.tokens, "epochs": self.epochs}


def make_plan(config: TrainConfig, progress: Progress | None = None) -> Plan:
    """Look, reckon and time. Raises UserError for a text or options that cannot work, or that a resumed run cannot
    change."""
    progress = progress or Progress()
    if config.resume:
        progress.stage("Reading the checkpoint")
        refuse_changes(newest_good(config.resume)[0].config, config)
    progress.stage("Reading the text")
    text = coded_text(config.data)
    model = replace(config.model, vocab_size=len(text.characters))
    available = available_bytes()
    progress.stage("Loading the kernels")
    backend = open_backend(config.backend, config.threads)
    progress.stage("Timing a small step")
    forecast = Forecast(model, config.batch, backend)
    progress.stage("Looking for the largest context")
    ways = tuple(_way(config, model, forecast, recompute, available) for recompute in (False, True))
    count = sum(spec.count for spec in parameter_specs(model))
    return Plan(
        replace(config, model=model), describe_backend(backend), len(text.codes), model.vocab_size, count, available,
        resident_bytes(), ways,
    )  # fmt: skip


def _way(config: TrainConfig, model: ModelConfig, forecast: Forecast, recompute: bool, available: int | None) -> Way:
    crosscheck = config.crosscheck_every > 0
    memory = training_memory(model, config.batch, config.backend, recompute=recompute, crosscheck=crosscheck)
    step = rehearse(model, config.batch, recompute=recompute, accumulate=config.accumulate)
    fits, largest = None, None
    if available is not None:
        fits = memory.total <= available
        largest = largest_ctx(
            model, config.batch, config.backend, available, recompute=recompute, crosscheck=crosscheck
        )
    return Way(recompute, memory, products(step), 1e3 * forecast.seconds(step), fits, largest)
