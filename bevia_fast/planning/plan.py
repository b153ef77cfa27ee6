"""What a run will take, before it starts: memory by purpose, arithmetic, time, and the largest context that fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..backends import describe_backend, open_backend
from ..config import ModelConfig, TrainConfig
from ..data.texts import encoded_text
from ..data.tokenfile import TRAINING_SHARE
from ..data.vocabulary import Vocabulary
from ..machine import available_bytes, resident_bytes
from ..model.parameters import parameter_specs
from ..reporter import Progress
from ..runs.checkpoint import newest_good, refuse_changes, refuse_lost_text
from ..runs.initial import initial_model
from .budget import Budget, make_budget, stage_steps, with_steps
from .disk import Disk, run_on_disk
from .forecast import products
from .memory import Memory, largest_ctx, run_memory
from .rehearsal import rehearse
from .staged import StagedForecast


@dataclass(frozen=True)
class Way:
    """One of the two ways to train: without or with --recompute."""

    recompute: bool
    memory: Memory
    flops: float  # in the matrix products of a step, including recomputed ones; of a schedule, the mean
    ms: float  # per step; of a schedule, the mean
    fits: bool | None  # None: the system does not report free memory
    largest_ctx: int | None  # that fits, with all other options unchanged


@dataclass(frozen=True)
class Plan:
    """The figures that `bevia-fast plan` prints. Sizes are in bytes."""

    config: TrainConfig
    kernels: str
    characters: int  # of the text, or its tokens if they are something else
    vocabulary: int
    parameters: int
    available: int | None
    process: int  # of this process without the model
    ways: tuple[Way, ...]
    disk: Disk
    budget: Budget | None = None  # from which the steps follow, with --minutes

    @property
    def tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.config.accumulate * self.config.batch * self.config.model.ctx

    @property
    def epochs(self) -> float:
        """How many times the run goes through the training split."""
        return self.config.steps * self.tokens / (TRAINING_SHARE * self.characters)

    def as_object(self) -> dict[str, Any]:
        """Return the plan as a dictionary for JSON."""
        found = asdict(self)
        for one, way in zip(found["ways"], self.ways, strict=True):
            one["memory"]["total"] = way.memory.total
            one["seconds"] = way.ms / 1e3 * self.config.steps
        found["disk"]["total"] = self.disk.total
        return {**found, "tokens": self.tokens, "epochs": self.epochs}


def make_plan(config: TrainConfig, progress: Progress | None = None) -> Plan:
    """Read the text, time a small step, and return the plan.

    Raises UserError for a text or options that cannot work, and for options that a resumed run cannot change.
    """
    progress = progress or Progress()
    vocabulary: Vocabulary | None = None
    if config.resume:
        progress.stage("Reading the checkpoint")
        checkpoint = newest_good(config.resume)[0]
        vocabulary = checkpoint.tokenizer
        refuse_changes(checkpoint.config, config)
        refuse_lost_text(checkpoint.config, config)
    if config.init and not config.resume:
        progress.stage("Reading the model")
        config, _, vocabulary, _ = initial_model(config)
    progress.stage("Reading the text")
    text = encoded_text(config, vocabulary=vocabulary)
    model = replace(config.model, vocab_size=text.tokens if vocabulary is None else len(vocabulary))
    available = available_bytes()
    progress.stage("Loading the kernels")
    backend = open_backend(config.backend, config.threads)
    progress.stage("Timing a small step")
    forecast = StagedForecast(config, model, backend)
    budget = None
    if config.minutes:
        last = len(text.codes) - int(TRAINING_SHARE * len(text.codes))
        budget = make_budget(config, model, forecast, last)
        config = with_steps(config, budget.steps)
    progress.stage("Searching for the largest context")
    ways = tuple(_way(config, model, forecast, recompute, available) for recompute in (False, True))
    count = sum(spec.count for spec in parameter_specs(model))
    return Plan(
        replace(config, model=model), describe_backend(backend, model.precision), len(text.codes), model.vocab_size,
        count, available,
        resident_bytes(), ways, run_on_disk(config, model), budget,
    )  # fmt: skip


def _way(
    config: TrainConfig, model: ModelConfig, forecast: StagedForecast, recompute: bool, available: int | None
) -> Way:
    options: dict[str, Any] = {"crosscheck": config.crosscheck_every > 0, "optimizer": config.optimizer}
    memory = run_memory(config, model, config.backend, recompute=recompute, **options)
    flops, seconds = 0.0, 0.0  # of all steps
    for stage, count in zip(config.stages, stage_steps(config.stages, config.steps), strict=True):
        step = rehearse(
            replace(model, ctx=stage.ctx), stage.batch, recompute=recompute, accumulate=config.accumulate,
            optimizer=config.optimizer,
        )  # fmt: skip
        flops += count * products(step)
        seconds += count * forecast.seconds(step)
    fits, largest = None, None
    if available is not None:
        fits = memory.total <= available
        largest = largest_ctx(model, config.batch, config.backend, available, recompute=recompute, **options)
        if fits:  # the search takes steps, and does not try all contexts
            largest = max(largest, model.ctx)
    return Way(recompute, memory, flops / config.steps, 1e3 * seconds / config.steps, fits, largest)
