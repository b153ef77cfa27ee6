"""The cross-check: every kernel of one backend held against the other's, then the training of a small model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .cases import cases
from .comparison import Comparison, compare, difference
from .config import ModelConfig, TrainConfig
from .crosscheck import compare_gradients
from .kernels import Backend
from .kernels.contract import OPERATIONS
from .trainer import Trainer

DTYPES: tuple[Literal["float32"], Literal["float64"]] = ("float32", "float64")
CURVE_TOLERANCE = {"float32": 1e-3, "float64": 1e-8}  # nats, between the losses of the same step


@dataclass(frozen=True)
class CheckRow:
    """A line of the table: the worst of several comparisons."""

    what: str
    dtype: str
    count: int
    worst: Comparison

    @property
    def ok(self) -> bool:
        return self.worst.ok

    @property
    def share(self) -> float:
        """The error as a share of what is allowed; above 1 it is too large."""
        return _share(self.worst)


def _share(comparison: Comparison) -> float:
    if comparison.error == 0.0:
        return 0.0
    return comparison.error / comparison.tolerance if comparison.tolerance else float("inf")


def _row(what: str, dtype: str, count: int, comparisons: Iterable[Comparison]) -> CheckRow:
    return CheckRow(what, dtype, count, max(comparisons, key=_share))


def check_kernels(a: Backend, b: Backend, quick: bool = False) -> Iterator[CheckRow]:
    """Backend `a` held against the reference `b`: a row for each operation and dtype.

    `quick` takes a quarter of the cases.
    """
    for operation in OPERATIONS:
        chosen = cases(operation)[:: 4 if quick else 1]
        for dtype in DTYPES:
            found = [result for case in chosen for result in compare(case, dtype, a, b)]
            yield _row(operation, dtype, len(chosen), found)


def check_training(a: Backend, b: Backend, dtype: Literal["float32", "float64"], steps: int = 50) -> Iterator[CheckRow]:
    """A small model trained by both from the same start: the first step's gradients, and all losses."""
    model = ModelConfig(ctx=24, dim=36, layers=2, heads=3, dropout=0.1, vocab_size=29, dtype=dtype)
    config = TrainConfig(model=model, batch=5, steps=steps, warmup=10)
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, 4096).astype(np.int32)
    tokens[1::2] = tokens[::2]  # something to learn: every second token repeats the one before
    trainers = [Trainer(config, model, backend, tokens) for backend in (a, b)]
    curves: list[list[float]] = [[], []]
    for step in range(1, steps + 1):
        for trainer, curve in zip(trainers, curves, strict=True):
            curve.append(trainer.backward(step))
        if step == 1:
            found = compare_gradients(trainers[0].gradients, trainers[1].gradients)
            yield _row("gradients of a model", dtype, len(found), found)
        for trainer, curve in zip(trainers, curves, strict=True):
            trainer.update(step, curve[-1])
    losses = difference("loss", np.array(curves[0]), np.array(curves[1]), CURVE_TOLERANCE[dtype], 1.0)
    yield _row("losses of training", dtype, steps, [losses])
