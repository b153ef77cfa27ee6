"""Layer normalization: each row is shifted to mean 0 and scaled to variance 1, then each channel is scaled and shifted.

The threads share groups of rows. Each group sums its gradients of weight and bias; the groups are then added in their
order, so no number of threads changes a bit.
"""

from __future__ import annotations

import numba

from .. import contract
from ..contract import NORM_EPS, Array, implements
from ._runtime.jit import device, kernel
from ._runtime.scratch import scratch
from ._runtime.target import TARGET
from ._simd.elementwise import zero
from ._simd.norm_rows import norm_input_gradient, norm_weight_gradient, normalize_four, normalize_row
from ._simd.packing import add_column_sums
from ._simd.views import whole
from .linear import absent

GROUP = 32  # rows
SHORT = 512  # channels: up to here four rows at a time are faster than one
FEW = 1 << 15  # sums; one thread adds so few before others have started


@implements(contract.layernorm_forward)
def layernorm_forward(
    out: Array, mean: Array, rstd: Array, inp: Array, weight: Array, bias: Array | None, *, eps: float = NORM_EPS
) -> None:
    # (N,C), (C,), (C,) -> out (N,C), mean (N,), rstd (N,)
    _forward(out, mean, rstd, inp, weight, absent(inp.dtype, 1) if bias is None else bias, eps)


@implements(contract.layernorm_backward)
def layernorm_backward(
    dinp: Array, dweight: Array, dbias: Array | None, dout: Array, inp: Array, weight: Array, mean: Array, rstd: Array,
    *, dresidual: Array | None = None,
) -> None:  # fmt: skip
    # (N,C), (N,C), (C,), (N,), (N,) -> dinp (N,C), dweight (C,), dbias (C,)
    (N, C), dtype = inp.shape, inp.dtype
    groups = -(-N // GROUP)
    _backward(
        (dinp, dweight, absent(dtype, 1) if dbias is None else dbias),
        (dout, inp, weight, mean, rstd, absent(dtype, 2) if dresidual is None else dresidual),
        scratch("layernorm sums", groups * 2 * C, dtype)[: groups * 2 * C].reshape(groups, 2 * C),
        4 * TARGET.lanes(dtype.itemsize),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- forward


@kernel()
def _forward(out, mean, rstd, inp, weight, bias, eps):
    N, real = len(inp), inp.dtype.type
    for group in numba.prange((N + GROUP - 1) // GROUP):
        rows = slice(group * GROUP, (group + 1) * GROUP)
        _forward_rows(
            whole(out)[rows], whole(mean)[rows], whole(rstd)[rows], whole(inp)[rows], whole(weight), whole(bias),
            real(eps),
        )  # fmt: skip


@device
def _forward_rows(out, mean, rstd, inp, weight, bias, eps):
    """out, mean and rstd of a group of rows"""
    fours = inp.rows - inp.rows % 4 if inp.columns <= SHORT else 0

    # mean = mean_c(inp);  variance = mean_c((inp - mean)^2);  rstd = 1 / sqrt(variance + eps)
    # norm = (inp - mean) * rstd;  out = norm * weight + bias
    for n in range(0, fours, 4):
        four = slice(n, n + 4)
        normalize_four(out[four], mean[four], rstd[four], inp[four], weight, bias, eps)
    for n in range(fours, inp.rows):
        mean[n], rstd[n] = normalize_row(out[n], inp[n], weight, bias, eps)


# ------------------------------------------------------------------------------------------------------------ backward


@kernel()
def _backward(outputs, inputs, sums, width):
    (dinp, dweight, dbias), (dout, inp, weight, mean, rstd, dresidual) = outputs, inputs
    groups, C = len(sums), len(weight)
    for group in numba.prange(groups):
        rows = slice(group * GROUP, (group + 1) * GROUP)
        saved = whole(inp)[rows], whole(weight), whole(mean)[rows], whole(rstd)[rows]
        _backward_rows(whole(dinp)[rows], whole(sums)[group], whole(dout)[rows], saved, whole(dresidual)[rows])
    blocks = (C + width - 1) // width
    if groups * C < FEW:
        for block in range(blocks):
            _add_groups(block * width, (block + 1) * width, dweight, dbias, sums)
    else:
        for block in numba.prange(blocks):
            _add_groups(block * width, (block + 1) * width, dweight, dbias, sums)


@device
def _backward_rows(dinp, sums, dout, saved, dresidual):
    """dinp of a group of rows, and what they add to dweight and dbias"""
    inp, weight, mean, rstd = saved
    dweight, dbias, C = sums[: inp.columns], sums[inp.columns :], inp.dtype.type(inp.columns)
    zero(sums)
    for n in range(inp.rows):
        statistics = mean[n], rstd[n]

        # norm = (inp - mean) * rstd;  dweight += dout * norm;  dbias += dout;  dnorm = dout * weight
        dnorm_sum, dnorm_norm_sum = norm_weight_gradient(dweight, dbias, dout[n], inp[n], statistics, weight)

        # shift = mean_c(dnorm);  scale = mean_c(dnorm * norm)
        shift, scale = dnorm_sum / C, dnorm_norm_sum / C

        # dinp = (dnorm - shift - norm * scale) * rstd + dresidual
        norm_input_gradient(dinp[n], dout[n], inp[n], statistics, weight, (shift, scale), dresidual[n])


@device
def _add_groups(first, last, dweight, dbias, sums):
    """dweight and dbias of some channels: the groups are added in their order"""
    dweight, dbias, sums = whole(dweight), whole(dbias), whole(sums)
    C = dweight.size
    add_column_sums(dweight[first:last], sums[:, :C][:, first:last])
    if dbias.size > 0:
        add_column_sums(dbias[first:last], sums[:, C:][:, first:last])
