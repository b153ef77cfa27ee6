"""Layer normalisation (Ba et al. 2016, arXiv:1607.06450): each row is shifted to mean 0 and scaled to variance 1, then
each channel gets a scale and a shift of its own.
"""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import NORM_EPS, Array, implements


@implements(contract.layernorm_forward)
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    # (N,C), (C,), (C,) -> out (N,C), mean (N,), rstd (N,)

    # Two numbers a row are saved: with them the backward pass has the normalised row again, without storing (N,C).
    mean[...] = inp.mean(axis=1)
    centred = inp - mean[:, None]
    # The variance is that of the centred row, a second pass: mean(inp^2) - mean^2 would cancel where the mean is large.
    variance = (centred * centred).mean(axis=1)
    rstd[...] = 1 / np.sqrt(variance + eps)  # eps keeps a constant row, of variance 0, finite

    norm = centred * rstd[:, None]
    result = norm * weight
    if bias is not None:
        result = result + bias
    out[...] = result


@implements(contract.layernorm_backward)
def layernorm_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array, mean: Array, rstd: Array,
    *, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C), (N,C), (C,), (N,), (N,) -> dinp (N,C), dweight (C,), dbias (C,)

    # forward: norm = (inp - mean) * rstd
    norm = (inp - mean[:, None]) * rstd[:, None]

    # forward: out = norm * weight + bias,  the same weight and bias for every row, so their gradients sum over rows
    dweight += (dout * norm).sum(axis=0)
    if dbias is not None:
        dbias += dout.sum(axis=0)
    dnorm = dout * weight

    # forward: norm = (inp - mean) * rstd,  where mean and rstd are functions of the row themselves. A row's mean and
    # variance are fixed to 0 and 1 whatever inp does, so the gradient can have no part that shifts the row (along 1)
    # and none that scales it (along norm): both are taken out of dnorm.
    shift = dnorm.mean(axis=1)
    scale = (dnorm * norm).mean(axis=1)
    result = (dnorm - shift[:, None] - norm * scale[:, None]) * rstd[:, None]

    # forward: the input went also around this layer, out2 = inp + f(layernorm(inp))
    if dresidual is not None:
        result = result + dresidual
    dinp[...] = result
