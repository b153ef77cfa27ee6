"""Time a step, an evaluation and a sample of a run before it begins: what `train --minutes` counts with.

A forecast is for models that need not exist (see `planning.forecast`). Here the model is about to be trained, so the
real pieces are timed, on weights that are thrown away: what the forecast cannot see, such as Python's share of small
steps and caches that the model does not fit into, is in them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..config import TrainConfig
from ..data.corpus import Corpus
from ..kernels.contract import Backend
from ..kernels.tape import NOT_PLAYED
from ..planning.budget import Pieces
from ..runs.trained import Run
from .evaluation import evaluate, short_sample
from .step import Trainer

SECONDS, LEAST = 2.0, 3  # how long, and how often at least, a piece is timed
SHARE = 0.05  # of the minutes: a trial that takes longer ends after the step that it is at


def time_pieces(config: TrainConfig, backend: Backend, corpus: Corpus) -> Pieces:
    """Train, evaluate and sample for some seconds, and return the mean time of each piece.

    The kernels must be compiled. The trial takes the memory that the run will take, and frees it.
    """
    ends = time.perf_counter() + 60.0 * config.minutes * SHARE
    trainer = Trainer(config, config.model, backend, corpus.training)
    run = Run(Path(), trainer.model, corpus.tokenizer)
    with np.errstate(all="ignore"):  # the learning rate may be one with which the run will diverge
        steps = tuple(
            _mean_seconds(functools.partial(_step, trainer, stage.first), ends, SECONDS / len(config.stages))
            for stage in config.stages
        )
        evaluation = functools.partial(evaluate, trainer.model, corpus.validation, config.batch, 1)
        one_batch = _mean_seconds(evaluation, ends, SECONDS / 4)
        short_sample(run, config.seed, 2)  # loads what only samples need
        began = time.perf_counter()
        short_sample(run, config.seed)
    return Pieces(steps, one_batch, time.perf_counter() - began)


def _step(trainer: Trainer, number: int) -> None:
    """Take a step, even if loss or norm are not finite."""
    trainer.backward(number)
    trainer.apply(trainer.backend, trainer.state, number, trainer.norm())


def _mean_seconds(piece: Callable[[], object], ends: float, seconds: float) -> float:
    """Call a piece for so many seconds, and return the mean time of a call, but for the first ones, unless these take
    all the time there is."""
    taken: list[float] = []
    began = time.perf_counter()
    while True:
        started = time.perf_counter()
        piece()
        now = time.perf_counter()
        taken.append(now - started)
        enough = len(taken) >= NOT_PLAYED + LEAST and now - began > seconds
        if enough or now > ends:
            later = taken[NOT_PLAYED:] or taken[-1:]
            return sum(later) / len(later)
