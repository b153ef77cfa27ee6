"""The training step that is timed: its sizes, its arithmetic, and how it runs on one of our backends.

A step consists of forward pass, backward pass, gradient clipping and the update, on a batch of random tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import ModelConfig, OptimizerName, TrainConfig
from ..kernels.contract import Backend
from ..kernels.costs import pairs_seen
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.optimizer import Optimizer, Rates
from ..model.parameters import Parameters
from .shared_step import LEARNING_RATE, random_batch

Array = NDArray[Any]
RATES = Rates.of(TrainConfig())


@dataclass(frozen=True)
class StepSize:
    """The sizes of a model and a batch."""

    ctx: int
    dim: int
    layers: int
    heads: int
    batch: int
    vocab: int
    dtype: Any = "float32"
    dropout: float = 0.0
    accumulate: int = 1  # batches per step
    activation: Any = "gelu"
    norm: Any = "pre"
    tie: bool = True
    bias: bool = True
    optimizer: Any = "adamw"
    positions: Any = "learned"
    window: int = 0
    window_layers: Any = "alternate"
    precision: Any = "float32"

    @classmethod
    def of(
        cls, model: ModelConfig, batch: int, accumulate: int = 1, optimizer: OptimizerName = "adamw"
    ) -> StepSize:
        return cls(
            model.ctx, model.dim, model.layers, model.heads, batch, model.vocab_size, model.dtype, model.dropout,
            accumulate, model.activation, model.norm, model.tie, model.bias, optimizer,
            model.positions, model.window, model.window_layers, model.precision,
        )  # fmt: skip

    @property
    def model(self) -> ModelConfig:
        return ModelConfig(
            ctx=self.ctx, dim=self.dim, layers=self.layers, heads=self.heads, vocab_size=self.vocab, dtype=self.dtype,
            dropout=self.dropout, activation=self.activation, norm=self.norm, tie=self.tie, bias=self.bias,
            positions=self.positions, window=self.window, window_layers=self.window_layers,
            precision=self.precision,
        )  # fmt: skip

    @property
    def roof(self) -> str:
        """What `peak_flops` measures as the roof: the dtype, or "bf16" where products are in bfloat16."""
        return "bf16" if self.precision == "bf16" else str(self.dtype)

    @property
    def variant(self) -> str:
        """What differs from GPT-2 trained with AdamW, in words; empty if nothing does."""
        windows = [window for window in self.model.windows if window]
        every_second = " in every second layer" + (", from the second on" if self.window_layers == "odd" else "")
        layers = "" if len(windows) == self.layers else every_second
        parts = {"norm post": self.norm != "pre", self.activation: self.activation != "gelu", "untied": not self.tie,
                 "no bias": not self.bias, "rotary": self.positions != "learned",
                 f"window {self.window}{layers}": bool(windows),
                 "Muon": self.optimizer == "muon"}  # fmt: skip
        return ", ".join(word for word, differs in parts.items() if differs)

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return self.accumulate * self.batch * self.ctx

    @property
    def flops(self) -> float:
        """Floating-point operations in the matrix products of a step, by the contract's cost models.

        Linear layers: 2 operations per weight and token forward, 4 backward. Causal attention: 7 products of
        B x NH x T(T+1)/2 x HS, 2 forward and 5 backward; fewer pairs than T(T+1)/2 with a window.
        Recomputed products count once and all other operations do not count, which is the usual convention for stating
        the fraction of the peak.
        """
        weights = 12 * self.dim**2 * self.layers + self.vocab * self.dim
        pairs = sum(pairs_seen(self.ctx, window) for window in self.model.windows)
        attention = 14.0 * self.tokens / self.ctx * pairs * self.dim
        return 6.0 * weights * self.tokens + attention


class TrainingStep:
    """A model on one of our backends, ready to train."""

    def __init__(
        self, size: StepSize, backend: Backend, weights: Mapping[str, Array] | None = None, *, recompute: bool = False
    ) -> None:
        """`weights`: initial weights by name; by default those of seed 0."""
        config = size.model
        self.size, self.backend = size, backend
        self.weights = Parameters.initial(config, 0) if weights is None else Parameters(config)
        for name, array in (weights or {}).items():
            self.weights[name][...] = array
        self.gradients, self.optimizer = Parameters(config), Optimizer.new(size.optimizer, config)
        self.model = GPT(config, backend, self.weights, recompute=recompute)
        self.tokens, self.targets = random_batch(0, (size.batch, size.ctx), size.vocab)
        self.count = 0

    def run(self) -> None:
        """Run one step."""
        parts = self.size.accumulate
        for part in range(parts):
            dropout = DropoutStream(0, self.count * parts + part) if self.size.dropout else None
            self.model.loss_and_gradients(self.tokens, self.targets, self.gradients, scale=1 / parts, dropout=dropout)
        self.update()

    def update(self) -> None:
        """Clip the gradients and update the weights."""
        self.count += 1
        norm = self.backend.squared_norm(self.gradients.flat) ** 0.5
        self.optimizer.update(
            self.backend, self.weights, self.gradients, RATES, step=self.count, learning_rate=LEARNING_RATE,
            muon_rate=LEARNING_RATE, gradient_scale=1.0 / norm if norm > 1.0 else 1.0,
        )  # fmt: skip

    def check(self, weights: Mapping[str, Array], shape: tuple[int, int]) -> dict[str, Array]:
        """Return loss and gradients by name, of a batch of (B, T) tokens.

        `weights`: the initial weights by name, to which the model is reset.
        """
        for name, array in weights.items():
            self.weights[name][...] = array
        for other in (self.gradients, self.optimizer.first, self.optimizer.second):
            other.flat.fill(0)
        self.count = 0
        tokens, targets = random_batch(1, shape, self.size.vocab)
        dropout = DropoutStream(1, 0) if self.size.dropout else None
        loss = self.model.loss_and_gradients(tokens, targets, self.gradients, dropout=dropout)
        found = {name: view.copy() for name, view in self.gradients.items()}
        self.gradients.flat.fill(0)
        return found | {"loss": np.array(loss)}
