"""Which kernel updates which weights: AdamW all of them, or Muon the matrices of the layers and AdamW the rest.

Embeddings and output head are matrices too, but each row of them belongs to one token, whose gradient is 0 in most
steps. Muon would make all rows change alike, so AdamW keeps them, as it keeps gains and biases.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ModelConfig, OptimizerName, TrainConfig
from ..kernels.contract import Backend
from .parameters import Parameters

FOREVER = 1 << 40  # steps after which beta^step is 0 for every beta below 1 - 1e-9, and the correction divides by 1


@dataclass(frozen=True)
class Rates:
    """The numbers of an update that do not change during a run; see the options of the same names."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    muon_momentum: float
    bias_correction: bool = True

    @classmethod
    def of(cls, config: TrainConfig) -> Rates:
        return cls(
            config.beta1, config.beta2, config.eps, config.weight_decay, config.muon_momentum, config.bias_correction
        )


class Optimizer:
    """What an optimizer remembers from step to step, and its update of the weights.

    `first` holds AdamW's first moment, and for weights of Muon its momentum instead. `second` holds AdamW's second
    moment; it has no room for weights of Muon.
    """

    def __init__(self, name: OptimizerName, first: Parameters, second: Parameters) -> None:
        self.name, self.first, self.second = name, first, second

    @classmethod
    def new(cls, name: OptimizerName, config: ModelConfig) -> Optimizer:
        """Return an optimizer before its first step: all moments are 0."""
        return cls(name, Parameters(config), second_moment(name, config))

    def update(
        self, backend: Backend, weights: Parameters, gradients: Parameters, rates: Rates,
        *, step: int, learning_rate: float, muon_rate: float, gradient_scale: float,
    ) -> None:  # fmt: skip
        """Take step number `step`, counted from 1, and set the gradients to 0."""
        step = step if rates.bias_correction else FOREVER
        w, g, m, v = weights.flat, gradients.flat, self.first.flat, self.second.flat

        def adamw(part: slice, moments: slice, decayed: int) -> None:
            backend.adamw(
                w[part], g[part], m[part], v[moments], step=step, decayed=decayed, learning_rate=learning_rate,
                beta1=rates.beta1, beta2=rates.beta2, eps=rates.eps, weight_decay=rates.weight_decay,
                gradient_scale=gradient_scale,
            )  # fmt: skip

        if self.name == "adamw":
            adamw(slice(None), slice(None), weights.decayed)
            return
        begin, end = weights.hidden.start, weights.hidden.stop
        adamw(slice(0, begin), slice(0, begin), begin)
        adamw(slice(end, None), slice(begin, None), weights.decayed - end)
        hidden = weights.hidden
        backend.muon(
            w[hidden], g[hidden], m[hidden], matrices=weights.hidden_matrices, learning_rate=muon_rate,
            beta=rates.muon_momentum, weight_decay=rates.weight_decay, gradient_scale=gradient_scale,
        )  # fmt: skip


def second_moment(name: OptimizerName, config: ModelConfig) -> Parameters:
    """Return room for AdamW's second moment of the weights that it updates, filled with 0."""
    return Parameters(config, hidden=name == "adamw")
