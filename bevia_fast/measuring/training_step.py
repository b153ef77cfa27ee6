"""The training step that is timed: its sizes, its arithmetic, and how it is built on one of our backends.

A step is forward, backward, gradient norm with clipping, and AdamW, on a batch of random tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.contract import Backend
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .shared_step import LEARNING_RATE, random_batch

Array = NDArray[Any]


@dataclass(frozen=True)
class StepSize:
    """A model and a batch."""

    ctx: int
    dim: int
    layers: int
    heads: int
    batch: int
    vocab: int
    dtype: Any = "float32"

    @classmethod
    def of(cls, model: ModelConfig, batch: int) -> StepSize:
        return cls(model.ctx, model.dim, model.layers, model.heads, batch, model.vocab_size, model.dtype)

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(
            ctx=self.ctx, dim=self.dim, layers=self.layers, heads=self.heads, vocab_size=self.vocab, dtype=self.dtype
        )

    @property
    def tokens(self) -> int:
        """Tokens that a step learns from."""
        return self.batch * self.ctx

    @property
    def flops(self) -> float:
        """Floating-point operations of a step's matrix products, by the contract's cost models.

        Linear layers: 2 operations for each weight and token forward, 4 backward. Causal attention: 7 products of
        B x NH x T(T+1)/2 x HS, 2 forward and 5 backward. What is computed twice counts once, and what is no product
        counts as nothing: that is the convention in which others state the fraction of the peak.
        """
        weights = 12 * self.dim**2 * self.layers + self.vocab * self.dim
        attention = 7.0 * self.layers * self.tokens * (self.ctx + 1) * self.dim
        return 6.0 * weights * self.tokens + attention


class TrainingStep:
    """A model on one of our backends, ready to be stepped."""

    def __init__(
        self, size: StepSize, backend: Backend, weights: Mapping[str, Array] | None = None, *, recompute: bool = False
    ) -> None:
        """`weights` by name, or else the usual initial ones."""
        config = size.model
        self.size, self.backend = size, backend
        self.weights = Parameters.initial(config, 0) if weights is None else Parameters(config)
        for name, array in (weights or {}).items():
            self.weights[name][...] = array
        self.gradients, self.first, self.second = (Parameters(config) for _ in range(3))
        self.model = GPT(config, backend, self.weights, recompute=recompute)
        self.tokens, self.targets = random_batch(0, (size.batch, size.ctx), size.vocab)
        self.count = 0

    def run(self) -> None:
        """One step."""
        self.model.loss_and_gradients(self.tokens, self.targets, self.gradients)
        self.update()

    def update(self) -> None:
        """What follows when the gradients are there."""
        self.count += 1
        backend, flat = self.backend, self.gradients.flat
        norm = backend.squared_norm(flat) ** 0.5
        backend.adamw(
            self.weights.flat, flat, self.first.flat, self.second.flat, step=self.count,
            decayed=self.weights.decayed, learning_rate=LEARNING_RATE, beta1=0.9, beta2=0.99, eps=1e-8,
            weight_decay=0.1, gradient_scale=1.0 / norm if norm > 1.0 else 1.0,
        )  # fmt: skip

    def check(self, weights: Mapping[str, Array], shape: tuple[int, int]) -> dict[str, Array]:
        """Loss and gradients of a batch of (B, T) tokens, with the weights by name that the step began with; the steps
        made so far are undone."""
        for name, array in weights.items():
            self.weights[name][...] = array
        for other in (self.gradients, self.first, self.second):
            other.flat.fill(0)
        self.count = 0
        tokens, targets = random_batch(1, shape, self.size.vocab)
        loss = self.model.loss_and_gradients(tokens, targets, self.gradients)
        found = {name: view.copy() for name, view in self.gradients.items()}
        self.gradients.flat.fill(0)
        return found | {"loss": np.array(loss)}
