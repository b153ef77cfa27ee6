"""AdamW: Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, alg. 2)."""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import Array, implements


@implements(contract.squared_norm)
def squared_norm(gradients: Array) -> float:
    # (P,) -> a number; in float64, for millions of small squares are added to a large sum
    return float(np.square(gradients, dtype=np.float64).sum())


@implements(contract.adamw)
def adamw(
    parameters: Array, gradients: Array, first_moment: Array, second_moment: Array,
    *, step: int, decayed: int, learning_rate: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    gradient_scale: float = 1.0,
) -> None:  # fmt: skip
    # (P,), (P,), (P,), (P,), all updated in place
    g = gradients * gradient_scale  # a scale below 1 is how a gradient that is too long gets clipped

    # running means of the gradient and of its square
    first_moment[...] = beta1 * first_moment + (1 - beta1) * g
    second_moment[...] = beta2 * second_moment + (1 - beta2) * (g * g)

    # Both started from 0, so early means are too small, by what is left of the start: 1 - beta^step is the share that
    # real gradients have in them.
    m = first_moment / (1 - beta1**step)
    v = second_moment / (1 - beta2**step)

    # mean over root mean square: a step of about 1 wherever the sign is steady, whatever the gradient's size. The decay
    # is added to the step, not to the gradient, where it would be divided by sqrt(v) with it.
    update = m / (np.sqrt(v) + eps)
    update[:decayed] += weight_decay * parameters[:decayed]
    parameters -= learning_rate * update

    gradients[...] = 0  # the next backward pass adds to them
