"""Causal multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762, eq. 1 and section 3.2.2).

Each position has a query q (what it looks for), a key k (what it can be found by) and a value v (what it passes on).
Its output is the mean of the values so far, weighted by how well their keys match its query. The C channels are split
into NH heads of HS channels, which work independently.
"""

from __future__ import annotations

import math

import numpy as np

from .. import contract
from ..bfloat16 import operand, rounded
from ..contract import Array, Precision, implements
from .dropout import dropout_mask


def split_heads(qkv: Array, num_heads: int) -> tuple[Array, Array, Array]:
    """(B,T,3C) -> q, k, v, each (B,NH,T,HS): views, nothing is copied."""
    B, T, _ = qkv.shape
    q, k, v = qkv.reshape(B, T, 3, num_heads, -1).transpose(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(heads: Array) -> Array:
    """(B,NH,T,HS) -> (B,T,C): the heads of a position, concatenated."""
    B, NH, T, HS = heads.shape
    return heads.transpose(0, 2, 1, 3).reshape(B, T, NH * HS)


def causal_scores(q: Array, k: Array, first: int = 0, window: int = 0) -> Array:
    """(B,NH,R,HS), (B,NH,T,HS) -> (B,NH,R,T): q[i] . k[j] / sqrt(HS) for queries at positions first + i."""
    R, T, HS = q.shape[2], k.shape[2], q.shape[3]
    # A dot product of HS independent terms of variance 1 has variance HS. Divided by sqrt(HS) it has variance 1 for any
    # head size; without that, large heads would start with a softmax so sharp that its gradient vanishes.
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(HS)
    # A position must not see later positions, which it has to predict: exp(-inf) is 0.
    distance = first + np.arange(R)[:, None] - np.arange(T)  # (R,T): how far back a key is
    unseen = distance < 0
    # With a window, it sees the nearest positions only, so that a position's work no longer grows with the context.
    # What is further back still reaches it through the layers below, one window further with each of them.
    if window:
        unseen |= distance >= window
    scores[:, :, unseen] = -np.inf
    return scores


def softmax(scores: Array) -> tuple[Array, Array]:
    """(...,T) -> weights (...,T), and the log of the sum of exponentials (...)"""
    # exp overflows float32 beyond 88. Dividing numerator and denominator by exp(max) leaves the quotient unchanged and
    # makes the largest exponent 0.
    largest = scores.max(axis=-1, keepdims=True)
    exponentials = np.exp(scores - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / total, (largest + np.log(total))[..., 0]


def attention_mask(key: int, shape: tuple[int, ...], rate: float) -> Array:
    """The dropout mask of all weights, (B,NH,T,T): row (b*NH + h)*T + i, column j."""
    B, NH, T, _ = shape
    return dropout_mask(key, B * NH * T, T, rate).reshape(shape)


def rounded_weights(weights: Array, lse: Array) -> Array:
    """(...,T), (...) -> the weights as `kernels.bfloat16` rounds them: as exponentials, before they are divided.

    weights = exp(scores - lse) are exp(scores - center) times exp(center - lse). Centers are multiples of log 2, so
    exponentials with one center or another differ by a power of 2, and round alike. That leaves lse modulo log 2.
    """
    scale = np.exp(np.mod(lse.astype(np.float64), math.log(2)))[..., None].astype(weights.dtype)
    result: Array = rounded(weights * scale) / scale
    return result


@implements(contract.attention_forward)
def attention_forward(
    out: Array, lse: Array, qkv: Array, *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0,
    precision: Precision = "float32",
) -> None:  # fmt: skip
    # (B,T,3C) -> out (B,T,C), lse (B,NH,T)
    contract.check_window("attention_forward", window)
    q, k, v = split_heads(operand(qkv, precision), lse.shape[1])  # (B,NH,T,HS) each

    weights, lse[...] = softmax(causal_scores(q, k, window=window))  # (B,NH,T,T)
    if dropout_rate != 0:
        # scaled up to keep each weight's expectation
        weights = weights * attention_mask(dropout_key, weights.shape, dropout_rate) * (1 / (1 - dropout_rate))
    if precision == "bf16":
        weights = rounded_weights(weights, lse)

    out[...] = merge_heads(weights @ v)


@implements(contract.attention_backward)
def attention_backward(
    dqkv: Array, dout: Array, qkv: Array, out: Array, lse: Array,
    *, window: int = 0, dropout_rate: float = 0.0, dropout_key: int = 0, precision: Precision = "float32",
) -> None:  # fmt: skip
    # (B,T,C), (B,T,3C), (B,T,C), (B,NH,T) -> (B,T,3C)
    contract.check_window("attention_backward", window)
    B, T, C = dout.shape
    NH = lse.shape[1]
    HS = C // NH
    q, k, v = split_heads(operand(qkv, precision), NH)  # (B,NH,T,HS) each
    dout_heads = dout.reshape(B, T, NH, HS).swapaxes(1, 2)  # (B,NH,T,HS)
    out_heads = out.reshape(B, T, NH, HS).swapaxes(1, 2)

    # forward: weights = softmax(scores) = exp(scores) / sum exp(scores) = exp(scores - lse)
    weights = np.exp(causal_scores(q, k, window=window) - lse[..., None])  # (B,NH,T,T)
    dropped = weights
    if dropout_rate != 0:
        mask = attention_mask(dropout_key, weights.shape, dropout_rate)
        dropped = weights * mask * (1 / (1 - dropout_rate))

    exact_dout = dout_heads  # only operands of products are rounded
    dout_heads, dropped = operand(dout_heads, precision), operand(dropped, precision)

    # forward: out = dropped @ v
    dv = dropped.swapaxes(-1, -2) @ dout_heads
    dweights = dout_heads @ v.swapaxes(-1, -2)

    # forward: dropped = weights * mask / (1 - dropout_rate)
    if dropout_rate != 0:
        dweights = dweights * mask * (1 / (1 - dropout_rate))

    # forward: weights = softmax(scores), with derivative
    #     dscores = weights * (dweights - sum_j weights[j] * dweights[j])
    # Insert dweights[j] = dout . v[j], and the sum becomes dout . (sum_j weights[j] v[j]) = dout . out: HS products
    # instead of T. With dropout the mask appears in both, and the result is the same.
    dout_heads = exact_dout
    row_sum = (dout_heads * out_heads).sum(axis=-1, keepdims=True)
    dscores = weights * (dweights - row_sum)

    if precision == "bf16":
        dscores = rounded(dscores / math.sqrt(HS)) * math.sqrt(HS)

    # forward: scores = q @ k^T / sqrt(HS)
    dq = dscores @ k / math.sqrt(HS)
    dk = dscores.swapaxes(-1, -2) @ q / math.sqrt(HS)

    dqkv[:, :, :C] = merge_heads(dq)
    dqkv[:, :, C : 2 * C] = merge_heads(dk)
    dqkv[:, :, 2 * C :] = merge_heads(dv)


@implements(contract.attention_weights)
def attention_weights(
    weights: Array, qkv: Array, first: int = 0, *, window: int = 0, precision: Precision = "float32"
) -> None:
    # (B,T,3C) -> (B,NH,R,T)
    contract.check_window("attention_weights", window)
    _, NH, R, T = weights.shape
    contract.check_rows(T, R, first)
    qkv = operand(qkv, precision)
    q, k, _ = split_heads(qkv, NH)
    weights[...], _ = softmax(causal_scores(q[:, :, first : first + R], k, first, window))
