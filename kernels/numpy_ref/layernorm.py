"""Layer normalization (Ba et al. 2016, arXiv:1607.06450): each row is shifted to mean 0 and scaled to variance 1, then
each channel is scaled and shifted.
"""

from __future__ import annotations

import numpy as np

from .. import contract
from ..contract import NORM_EPS, Array, implements
from ._sums import sum_of_rows


@implements(contract.layernorm_forward)
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    # (N,C), (C,), (C,) -> out (N,C), mean (N,), rstd (N,)

    # Two numbers per row are saved. From them the backward pass recomputes norm, so that (N,C) need not be stored.
    mean[...] = inp.mean(axis=1)
    centered = inp - mean[:, None]
    # The variance takes a second pass, over the centered row: mean(inp^2) - mean^2 would cancel if the mean is large.
    variance = (centered * centered).mean(axis=1)
    rstd[...] = 1 / np.sqrt(variance + eps)  # eps keeps it finite for a constant row, of variance 0

    norm = centered * rstd[:, None]
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

    # forward: out = norm * weight + bias.  All rows share weight and bias, so their gradients are sums over the rows.
    dweight += sum_of_rows(dout * norm)
    if dbias is not None:
        dbias += sum_of_rows(dout)
    dnorm = dout * weight

    # forward: norm = (inp - mean) * rstd,  where mean and rstd depend on the row too. Neither a shift of the row nor a
    # scaling of it changes norm. So dinp must have no part along 1, the direction of a shift, and none along norm, the
    # direction of a scaling: both are subtracted from dnorm.
    shift = dnorm.mean(axis=1)
    scale = (dnorm * norm).mean(axis=1)
    result = (dnorm - shift[:, None] - norm * scale[:, None]) * rstd[:, None]

    # forward: the input also bypasses this layer, inp + f(layernorm(inp)),  so its other gradient is added
    if dresidual is not None:
        result = result + dresidual
    dinp[...] = result
