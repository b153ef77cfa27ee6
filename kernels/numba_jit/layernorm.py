"""Layer normalisation: a row to a thread; the gradients of gain and bias are folded over fixed groups of rows."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import NORM_EPS, Array, implements
from ._jit import kernel
from ._scratch import scratch
from ._simd.norm_spans import (
    normalize_gradient_span,
    normalize_span,
    normalize_sums_span,
    squared_distance_span,
    sum_span,
)

GROUP = 32  # rows whose weight gradients are summed together: by data, so that no thread count changes the result


@implements(contract.layernorm_forward)
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    # (N,C) -> (N,C), (N,), (N,)
    _forward(out, mean, rstd, inp, weight, weight if bias is None else bias, bias is not None, eps)


@implements(contract.layernorm_backward)
def layernorm_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array, mean: Array, rstd: Array,
    *, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C) -> (N,C), (C,), (C,)
    N, C = inp.shape
    groups = -(-N // GROUP)
    _backward(
        dinp, dweight, dweight if dbias is None else dbias, dbias is not None, dout, inp, weight, mean, rstd,
        dout if dresidual is None else dresidual, dresidual is not None,
        scratch("layernorm sums", groups * 2 * C, inp.dtype)[: groups * 2 * C].reshape(groups, 2, C),
    )  # fmt: skip


@kernel()
def _forward(
    out, mean, rstd, inp, weight, bias, use_bias, eps
):
    N, C = inp.shape
    count, one = inp.dtype.type(C), inp.dtype.type(1)
    for n in numba.prange(N):
        mean[n] = sum_span(inp, n * C, C) / count
        variance = squared_distance_span(inp, n * C, C, mean[n]) / count
        rstd[n] = one / (variance + inp.dtype.type(eps)) ** inp.dtype.type(0.5)
        normalize_span(out, n * C, inp, n * C, C, mean[n], rstd[n], weight, bias, use_bias)


@kernel()
def _backward(
    dinp, dweight, dbias, use_bias, dout, inp, weight, mean, rstd,
    dresidual, use_dresidual, sums,
):  # fmt: skip
    N, C = inp.shape
    count = inp.dtype.type(C)
    groups = len(sums)
    for group in numba.prange(groups):
        sums[group] = 0
        for n in range(group * GROUP, min(N, (group + 1) * GROUP)):
            at = n * C
            dnorm, dnorm_norm = normalize_sums_span(dout, at, inp, at, C, mean[n], rstd[n], weight)
            normalize_gradient_span(
                dinp, at, sums, group * 2 * C, sums, group * 2 * C + C, dout, at, inp, at, C, mean[n], rstd[n], weight,
                dnorm / count, dnorm_norm / count, dresidual, at, use_dresidual,
            )  # fmt: skip
    for c in numba.prange(C):
        for group in range(groups):
            dweight[c] += sums[group, 0, c]
            if use_bias:
                dbias[c] += sums[group, 1, c]
