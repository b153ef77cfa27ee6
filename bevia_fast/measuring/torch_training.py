"""Training in PyTorch: the model of `torch_peer`, step by step on batches and with learning rates that are given.

This runs in an interpreter that has PyTorch and NumPy; see `torch_peer`.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from .torch_peer import arrays_of, load_weights, loss_of, torch_model


class TorchTraining:
    """A run in PyTorch. `rates` are the options of the optimizer, by the names of TrainConfig."""

    def __init__(
        self, size: dict[str, Any], weights: Any, data: Any, rates: dict[str, float], how: tuple[int, str]
    ) -> None:
        """`data`: the training tokens, and where the window of each row of each batch starts. `how`: the number of
        threads, and eager, compile or bf16."""
        self.size, self.rates, (threads, self.precision) = size, rates, how
        torch.set_num_threads(threads)
        self.model = torch_model(size, self.precision)
        load_weights(self.model, weights)
        self.forward = torch.compile(self.model) if self.precision == "compile" else self.model
        self.tokens, self.starts = torch.from_numpy(data["tokens"]).long(), torch.from_numpy(data["starts"])
        self.places = torch.arange(size["ctx"])
        named = list(self.model.named_parameters())
        groups = [
            {"params": [p for _, p in named if p.ndim == 2], "weight_decay": rates["weight_decay"]},
            {"params": [p for _, p in named if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=1.0, betas=(rates["beta1"], rates["beta2"]), eps=rates["eps"], fused=True
        )
        self._gradient(0)  # compiles, and touches memory for the first time
        self.optimizer.zero_grad(set_to_none=True)

    def advance(self, first: int, learning_rates: list[float]) -> tuple[float, bool]:
        """Take a step for each learning rate, from number `first` on; return their seconds, and whether all losses were
        finite."""
        began = time.perf_counter()
        for step, rate in enumerate(learning_rates, first):
            if not math.isfinite(self._step(step, rate)):
                return time.perf_counter() - began, False
        return time.perf_counter() - began, True

    def arrays(self) -> dict[str, Any]:
        """Return the weights by our names."""
        return arrays_of(self.model)

    def _step(self, step: int, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        parts = int(self.rates["accumulate"])
        loss = sum(self._gradient((step - 1) * parts + part) for part in range(parts))
        if self.rates["grad_clip"]:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.rates["grad_clip"])
        self.optimizer.step()
        return loss

    def _gradient(self, index: int) -> float:
        """Add the gradient of a batch, divided by the batches of a step; return its part of the loss."""
        batch = self.size["batch"]
        places = self.starts[index * batch : (index + 1) * batch, None] + self.places
        loss = loss_of(self.forward, self.precision, self.tokens[places], self.tokens[places + 1])
        loss = loss / int(self.rates["accumulate"])
        loss.backward()
        return float(loss.item())
