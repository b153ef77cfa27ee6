"""AdamW: Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, alg. 2)."""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import Array, implements


@implements(contract.squared_norm)
def squared_norm(gradients: Array) -> float:
    # (P,) -> a number, in float64: millions of small squares are added to a large sum
    return float(np.square(gradients, dtype=np.float64).sum())


@implements(contract.adamw)
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), (P,), all updated in place
    g = gradients * gradient_scale  # gradient clipping: a scale below 1 shortens a gradient that is too long

    # exponential moving averages of the gradient and of its square
    first_moment[...] = beta1 * first_moment + (1 - beta1) * g
    second_moment[...] = beta2 * second_moment + (1 - beta2) * (g * g)

    # Bias correction: both averages start at 0, so early ones are too small. After `step` gradients the weights of the
    # gradients in an average sum to 1 - beta^step, not to 1.
    m = first_moment / (1 - beta1**step)
    v = second_moment / (1 - beta2**step)

    # The mean over the root mean square is about 1 or -1 where the gradient keeps its sign, whatever its size; with eps
    # it is finite where the gradient is 0. Weight decay is added to the update; added to the gradient, as in L2
    # regularisation, it would be divided by sqrt(v) too.
    update = m / (np.sqrt(v) + eps)
    update[:decayed] += weight_decay * parameters[:decayed]
    parameters -= learning_rate * update

    gradients[...] = 0  # ready for the next backward pass, which adds to them
