"""Train the same small model with two backends, step by step, and compare them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from ..agreement.comparison import difference
from ..agreement.crosscheck import compare_gradients
from ..agreement.sweep import CheckRow, row_of
from ..config import ModelConfig, OptimizerName, TrainConfig
from ..kernels.contract import Backend
from .step import Trainer

CURVE_TOLERANCE = {"float32": 1e-3, "float64": 1e-8, "bf16": 1e-2}  # nats, between the losses of the same step


def check_training(
    a: Backend, b: Backend, dtype: Literal["float32", "float64", "bf16"], steps: int = 50,
    optimizer: OptimizerName = "adamw",
) -> Iterator[CheckRow]:  # fmt: skip
    """Train a small model with both backends and compare the gradients of the first step and the losses of all steps.

    Both start from the same weights. Yields one row for the gradients, then one for the losses; with Muon, whose first
    gradients are the same, only that.
    """
    model = ModelConfig(ctx=24, dim=36, layers=2, heads=3, dropout=0.1, vocab_size=29)
    model = replace(model, precision="bf16") if dtype == "bf16" else replace(model, dtype=dtype)
    config = TrainConfig(
        model=model, batch=5, steps=steps, warmup=10, lr=1e-3, min_lr=1e-4, optimizer=optimizer
    )
    tokens = np.random.default_rng(0).integers(0, model.vocab_size, 4096).astype(np.int32)
    tokens[1::2] = tokens[::2]  # something to learn: every second token repeats the one before it
    trainers = [Trainer(config, model, backend, tokens) for backend in (a, b)]
    curves: list[list[float]] = [[], []]
    for step in range(1, steps + 1):
        for trainer, curve in zip(trainers, curves, strict=True):
            curve.append(trainer.backward(step))
        if step == 1 and optimizer == "adamw":
            found = compare_gradients(trainers[0].gradients, trainers[1].gradients)
            yield row_of("gradients of a model", dtype, len(found), found)
        for trainer, curve in zip(trainers, curves, strict=True):
            trainer.update(step, curve[-1])
    losses = difference("loss", np.array(curves[0]), np.array(curves[1]), CURVE_TOLERANCE[dtype], 1.0)
    what = "losses of training" + (", Muon" if optimizer == "muon" else "")
    yield row_of(what, dtype, steps, [losses])
