"""How many steps fit into a time: the steps of `train --minutes`, found before the first of them.

A plan takes the time of a step and of an evaluation from the forecast, a run from a trial of the real ones. The number
of steps is then an option of the run like any other: it is written down, and the run can be repeated and resumed
without a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config import ModelConfig, TrainConfig
from ..data.corpus import usual_evaluation
from ..errors import ConfigError
from ..machine import duration
from ..naming import option
from ..stages import Stage
from .forecast import Forecast
from .rehearsal import rehearse, rehearse_evaluation
from .staged import StagedForecast

WARMUP = 10  # the warmup takes at most one step in so many, so that the learning rate has time to fall


@dataclass(frozen=True)
class Pieces:
    """The expected seconds of a step of each stage, of one batch of an evaluation, and of a sample."""

    steps: tuple[float, ...]
    evaluation: float
    sample: float = 0.0


@dataclass(frozen=True)
class Budget:
    """What a run of a given time consists of, in expected seconds."""

    seconds: float
    step: float  # of a context warm-up, the mean
    evaluation: float
    steps: int
    sampling: float = 0.0  # of all samples

    def total(self, eval_every: int) -> float:
        """Return the expected seconds of all steps, evaluations and samples."""
        return self.steps * self.step + evaluations(self.steps, eval_every) * self.evaluation + self.sampling

    def described(self, eval_every: int) -> str:
        """Return the steps, and what they take, in words."""
        share = evaluations(self.steps, eval_every) * self.evaluation / self.total(eval_every)
        return (
            f"{self.steps:,} in {duration(self.seconds)}: {duration(self.step)} each, and {share:.0%} of the time for "
            "evaluations"
        )


def evaluations(steps: int, every: int) -> int:
    """Return how many evaluations a run has: at step 0, at every multiple of `every`, and at the last step."""
    return 1 + -(-steps // every)


def stage_steps(stages: Sequence[Stage], steps: int) -> list[int]:
    """Return how many of a run's steps belong to each stage of its context warm-up."""
    ends = [*(stage.first - 1 for stage in stages[1:]), steps]
    return [max(0, min(end, steps) - (stage.first - 1)) for stage, end in zip(stages, ends, strict=True)]


def samples(steps: int, every: int) -> int:
    """Return how many samples a run writes: before the first step, at every multiple of `every`, and a longer one at
    the end, which counts as three."""
    return 4 + (steps - 1) // every if every else 3


def make_budget(
    config: TrainConfig, model: ModelConfig, forecast: Forecast | StagedForecast, characters: int
) -> Budget:
    """Return the steps that fit into `config.minutes` by a forecast; see `steps_that_fit`. Samples are not counted."""
    steps = tuple(
        forecast.seconds(
            rehearse(replace(model, ctx=stage.ctx), stage.batch, recompute=config.recompute,
                     accumulate=config.accumulate, optimizer=config.optimizer)
        )
        for stage in config.stages
    )  # fmt: skip
    batch = forecast.seconds_of(rehearse_evaluation(model, config.batch))
    return steps_that_fit(config, model, Pieces(steps, batch), characters)


def steps_that_fit(config: TrainConfig, model: ModelConfig, pieces: Pieces, characters: int) -> Budget:
    """Return the steps that fit into `config.minutes`, for a text whose validation split has so many `characters`.

    Saving and cross-checks are not counted. Raises ConfigError if not a single step fits.
    """

    def stepping(steps: int) -> float:
        counts = stage_steps(config.stages, steps)
        return sum(number * each for number, each in zip(counts, pieces.steps, strict=True))

    def rest(steps: int) -> float:
        return evaluations(steps, config.eval_every) * evaluation + samples(steps, config.sample_every) * pieces.sample

    batches = config.eval_batches or usual_evaluation(range(characters), model.ctx, config.batch)
    covered = (characters - 1) / (config.batch * model.ctx)  # in batches
    covered = min(covered, batches) if batches else covered
    evaluation = covered * pieces.evaluation
    seconds = 60.0 * config.minutes
    # the largest number of steps whose evaluations and samples fit too
    low, high = 0, int(seconds / min(pieces.steps))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if stepping(middle) + rest(middle) <= seconds else (low, middle - 1)
    if not low:
        step = pieces.steps[0]
        raise ConfigError(
            f"{option('minutes')} is {config.minutes:g}; a step of this model takes about {duration(step)}, and an "
            f"evaluation {duration(evaluation)}, so that at least {(step + rest(1)) / 60:.2g} are needed."
        )
    sampling = samples(low, config.sample_every) * pieces.sample
    return Budget(seconds, stepping(low) / low, evaluation, low, sampling)


def with_steps(config: TrainConfig, steps: int) -> TrainConfig:
    """Return options for so many steps instead of a time. The warmup is at most a tenth of them."""
    return replace(config, minutes=0.0, steps=steps, warmup=min(config.warmup, -(-steps // WARMUP)))
