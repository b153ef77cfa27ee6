"""Layer normalisation: a row to a thread; the gradients of gain and bias are folded over fixed groups of rows."""

from __future__ import annotations

import numba

from .. import contract
from ..contract import NORM_EPS, Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.target import TARGET
from ._simd.elementwise import zero
from ._simd.norm_gradient import norm_input_gradient, norm_weight_gradient
from ._simd.norm_rows import normalize_four, normalize_one
from ._simd.packing import add_column_sums
from ._simd.views import matrix, row_of

SHORT = 1024  # bytes of a row: of such rows four are taken together
ALONE = 1 << 15  # sums of channels: fewer are folded before other threads had begun
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
        scratch("layernorm sums", groups * 2 * C, inp.dtype), groups, 4 * TARGET.lanes(inp.itemsize),
    )  # fmt: skip


@kernel()
def _forward(
    out, mean, rstd, inp, weight, bias, use_bias, eps
):
    N, C = inp.shape
    real = inp.dtype.type
    at_once = 4 if C * inp.itemsize <= SHORT else 1
    for block in numba.prange((N + at_once - 1) // at_once):
        n = block * at_once
        at = n * C
        if at_once == 4:
            normalize_four(
                out, at, mean, n, rstd, n, inp, at, min(4, N - n), C, weight, 0, bias, 0, use_bias, real(eps)
            )
        else:
            normalize_one(out, at, mean, n, rstd, n, inp, at, 1, C, weight, 0, bias, 0, use_bias, real(eps))


@kernel()
def _backward(
    dinp, dweight, dbias, use_bias, dout, inp, weight, mean, rstd,
    dresidual, use_dresidual, sums, groups, width,
):  # fmt: skip
    N, C = inp.shape
    for group in numba.prange(groups):
        row = group * 2 * C
        zero(row_of(sums, row, 2 * C))
        for n in range(group * GROUP, min(N, (group + 1) * GROUP)):
            at = n * C
            _row_gradient(
                row_of(dinp, at, C), row_of(sums, row, C), row_of(sums, row + C, C), row_of(dout, at, C),
                row_of(inp, at, C), row_of(weight, 0, C), mean[n], rstd[n],
                row_of(dresidual, at, C if use_dresidual else 0),
            )  # fmt: skip
    columns = (C + width - 1) // width
    if groups * C < ALONE:
        for block in range(columns):
            _fold(block * width, width, dweight, dbias, use_bias, sums, groups, C)
    else:
        for block in numba.prange(columns):
            _fold(block * width, width, dweight, dbias, use_bias, sums, groups, C)


@device
def _row_gradient(dinp, dweight, dbias, dout, inp, weight, mean, rstd, dresidual):
    """The gradient of one row, and what it adds to the gradients of gain and bias."""
    count, statistics = inp.dtype.type(inp.size), (mean, rstd)
    dnorm, dnorm_norm = norm_weight_gradient(dweight, dbias, dout, inp, weight, statistics)
    norm_input_gradient(dinp, dout, inp, weight, dresidual, statistics, (dnorm / count, dnorm_norm / count))


@device
def _fold(c, width, dweight, dbias, use_bias, sums, groups, C):
    """The sums of all groups, for `width` channels from c on."""
    n = min(width, C - c)
    add_column_sums(row_of(dweight, c, n), matrix(sums, c, groups, n, 2 * C))
    if use_bias:
        add_column_sums(row_of(dbias, c, n), matrix(sums, C + c, groups, n, 2 * C))
