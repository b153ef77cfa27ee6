"""Sizes for a text, a machine and a time: what `train --preset auto` and `plan --fit` propose.

A larger model learns more from each character, and a smaller one sees more of them in the same time. Hoffmann et al.
2022 ("Chinchilla") describe the loss that a model of N parameters reaches after D tokens; Muennighoff et al. 2023,
"Scaling Data-Constrained Language Models", correct it for a text that is read more than once:

    loss = A / N'^alpha + B / D'^alpha + E

    D' = U + U R_D (1 - exp(-(D / U - 1) / R_D))    U: distinct tokens of the text, or D if that is less
    N' = M + M R_N (1 - exp(-(N / M - 1) / R_N))    M: the best N for U tokens, or N if that is less

so that a second reading is worth almost as much as the first, the sixteenth little, and parameters beyond what the text
can fill less and less. The constants are theirs, fitted to models of 7 million parameters and more on tokens of about
four characters; here a token is a character. So the loss that follows is not a prediction: only its order matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..backends import open_backend
from ..config import TrainConfig
from ..data.texts import encoded_text
from ..data.tokenfile import TRAINING_SHARE
from ..errors import ConfigError
from ..machine import available_bytes, duration
from ..model.parameters import parameter_specs
from ..naming import option
from ..reporter import Progress
from .budget import Budget, make_budget
from .forecast import Forecast
from .memory import run_memory

A, B, ALPHA, E = 521.0, 1488.0, 0.353, 1.87  # Muennighoff et al. 2023, appendix A
READINGS, EXCESS = 15.4, 5.3  # R_D and R_N there
BEST_RATIO = (A / B) ** (1.0 / ALPHA)  # parameters per distinct token, where both terms fall equally fast; 1 / 19.5

DIMS = (32, 64, 128, 192, 256, 384, 512, 768)
HEAD_SIZE = 32  # up to a dim of 256, and 64 from there on
DEPTHS = (1, 2, 4, 6, 8, 12)
ASPECT = (16, 128)  # dim / layers, least and most; the presets have 32 to 64
CONTEXTS = ((1_000_000, 64), (4_000_000, 128), (1 << 62, 256))  # up to so many parameters
FORECAST_CTX = 128  # below LONG times the least dim: the sizes proposed call the same kernels
TOKENS_PER_STEP = (512, 4096)  # least and most, as in the presets
STEPS = 2500  # a run has about so many, if the tokens per step allow it
RATE, RATE_DIM, MOST_RATE = 4e-3, 128, 4e-3  # the learning rate falls with the width (Yang et al. 2022)


@dataclass(frozen=True)
class Candidate:
    """Sizes, what they do in the time, and the loss by which they are ranked."""

    config: TrainConfig
    parameters: int
    budget: Budget
    distinct: int
    loss: float

    @property
    def tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.budget.steps * self.config.batch * self.config.model.ctx

    def described(self) -> str:
        c = self.config.model
        return (
            f"dim {c.dim}, layers {c.layers}, heads {c.heads}, ctx {c.ctx}, batch {self.config.batch}: "
            f"{self.parameters:,} parameters, {self.budget.steps:,} steps of {duration(self.budget.step)}, "
            f"{self.tokens / self.parameters:.3g} characters per parameter, "
            f"the text {self.tokens / self.distinct:.3g} times"
        )


def law(parameters: float, tokens: float, distinct: float) -> float:
    """Return the loss of the formula above, for a text with so many `distinct` tokens."""
    unique = min(tokens, distinct)
    filled = min(parameters, BEST_RATIO * unique)
    worth = _worth(tokens, unique, READINGS)
    size = _worth(parameters, filled, EXCESS)
    return float(A / size**ALPHA + B / worth**ALPHA + E)


def _worth(amount: float, base: float, scale: float) -> float:
    """Return what `amount` is worth if only `base` of it is new."""
    return base + base * scale * (1.0 - math.exp(-(amount / base - 1.0) / scale))


def fit(config: TrainConfig, progress: Progress | None = None) -> list[Candidate]:
    """Return sizes for the text and the minutes of `config`, the best first. They take the other options from it.

    Reads the text and times small steps of several widths. Raises ConfigError without minutes, or if no size fits into
    the time and the memory, and DataError for a text that cannot be read.
    """
    progress = progress or Progress()
    if not config.minutes:
        raise ConfigError(f"Sizes can only be chosen for a time; give it with {option('minutes')}.")
    progress.stage("Reading the text")
    text = encoded_text(config)
    backend = open_backend(config.backend, config.threads)
    distinct = int(TRAINING_SHARE * len(text.codes))
    validation = len(text.codes) - distinct
    available = available_bytes()
    found: list[Candidate] = []
    for number, dim in enumerate(DIMS):
        progress.stage(f"Timing steps of {dim} channels")
        timed = replace(  # of the kind that is trained: its calls are those of the sizes proposed
            config.model, ctx=FORECAST_CTX, dim=dim, layers=1, heads=_heads(dim), vocab_size=text.tokens
        )
        forecast = Forecast(timed, 8, backend, config.optimizer)
        for sizes in _sizes(config, dim, text.tokens, validation):
            candidate = _candidate(sizes, forecast, distinct, validation)
            if candidate is None:
                continue
            memory = run_memory(
                candidate.config, candidate.config.model, config.backend, recompute=config.recompute,
                optimizer=config.optimizer,
            )  # fmt: skip
            if available is None or memory.total <= available:
                found.append(candidate)
        progress.advance(number + 1, len(DIMS))
        best = min((each.loss for each in found), default=math.inf)
        if found and all(each.loss > best for each in found if each.config.model.dim >= DIMS[max(0, number - 1)]):
            break  # two widths in turn are too wide
    if not found:
        raise ConfigError(
            f"{option('minutes')} is {config.minutes:g}; not even the smallest model does a step and its evaluations "
            "in that time, in the memory that is free and on a text of this length."
        )
    return sorted(found, key=lambda each: each.loss)


def _heads(dim: int) -> int:
    return max(1, dim // (HEAD_SIZE if dim <= 256 else 2 * HEAD_SIZE))


def _sizes(config: TrainConfig, dim: int, vocabulary: int, validation: int) -> Iterator[TrainConfig]:
    """Yield options with sizes of this width, before the batch is known."""
    for layers in DEPTHS:
        if not ASPECT[0] <= dim / layers <= ASPECT[1]:
            continue
        model = replace(
            config.model, dim=dim, layers=layers, heads=_heads(dim), ctx=64, vocab_size=vocabulary
        )
        count = sum(spec.count for spec in parameter_specs(model))
        ctx = next(ctx for most, ctx in CONTEXTS if count <= most)
        if ctx >= validation:
            continue
        rate = min(MOST_RATE, RATE * RATE_DIM / dim)
        yield replace(
            config, model=replace(model, ctx=ctx), batch=TOKENS_PER_STEP[0] // ctx, lr=rate, min_lr=rate / 10
        )


def _candidate(config: TrainConfig, forecast: Forecast, distinct: int, validation: int) -> Candidate | None:
    """Return the sizes with the batch that makes about STEPS steps; None if the time is too short for them."""
    model, batch = config.model, config.batch
    while True:
        config = replace(config, batch=batch)
        try:
            budget = make_budget(config, model, forecast, validation)
        except ConfigError:
            return None
        if budget.steps <= STEPS or batch * model.ctx >= TOKENS_PER_STEP[1]:
            break
        batch *= 2
    count = sum(spec.count for spec in parameter_specs(model))
    tokens = budget.steps * batch * model.ctx
    return Candidate(config, count, budget, distinct, law(count, tokens, distinct))
