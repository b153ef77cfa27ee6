"""What a model computes for one text: every stage of the forward pass, by the engine's own kernels.

The sequence of calls is that of `model.pre_norm` and `model.post_norm`; a test compares the bits. The passes there
reuse their arrays from layer to layer, and these are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.memory import aligned_empty
from ..kernels.numpy_ref.attention import softmax, split_heads
from ..model.gpt import GPT
from ..model.parameters import Affine
from ..model.rotary import context_tables

Array = NDArray[Any]

BEST = 8  # characters that are kept of each distribution


@dataclass(frozen=True)
class Layer:
    """One block, for a text of T tokens."""

    scores: Array  # (NH, T, T): q . k, before the scale and the mask
    weights: Array  # (NH, T, T)
    attention: Array  # (T, C): the stream after the attention's residual; with post-norm, after its norm
    mlp: Array  # (T, C): the stream after the MLP's residual; with post-norm, after its norm


@dataclass(frozen=True)
class Trace:
    """All stages of one text of T tokens, in the model's dtype."""

    tokens: Array  # (T,) int32
    embedding: Array  # (T, C)
    layers: list[Layer]
    final: Array  # (T, C): after ln_f
    logits: Array  # (T, V)

    def streams(self) -> list[Array]:
        """Return the stream (T, C) after the embedding, and after the attention and the MLP of each block."""
        return [self.embedding, *(stream for layer in self.layers for stream in (layer.attention, layer.mlp))]


def trace(model: GPT, tokens: Array) -> Trace:
    """Run a forward pass over `tokens` (T,) int32 without dropout, and keep all of its stages.

    Raises ContractError for an id that is not in [0, V).
    """
    kernels, weights, T, C, NH = model.backend, model.parameters, tokens.size, model.config.dim, model.config.heads
    pre, dtype = model.config.norm == "pre", model.config.dtype

    # x = wte[tokens] + wpe;  with rotary positions, there is no wpe
    x = embedding = aligned_empty((T, C), dtype)
    kernels.embedding_forward(x[None], tokens[None], weights["wte.weight"], weights.positions(T))
    angles = context_tables(model.config, T) if model.config.positions == "rotary" else None

    layers = []
    for w, window in zip(weights.layers, model.config.windows, strict=True):
        # pre-norm: x = x + attn(ln_1(x));  post-norm: x = ln_1(x + attn(x))
        qkv = _linear(model, _norm(model, x, w.ln_1) if pre else x, w.qkv)
        if angles is not None:
            kernels.rotary_forward(qkv[None], *angles)
        maps, attended, lse = (aligned_empty(shape, dtype) for shape in ((1, NH, T, T), (1, T, C), (1, NH, T)))
        kernels.attention_weights(maps, qkv[None], window=window)
        kernels.attention_forward(attended, lse, qkv[None], window=window)
        x = attention = _linear(model, attended[0], w.attn_proj, residual=x)
        if not pre:
            x = attention = _norm(model, x, w.ln_1)

        # pre-norm: x = x + mlp(ln_2(x));  post-norm: x = ln_2(x + mlp(x))
        hidden = _linear(model, _norm(model, x, w.ln_2) if pre else x, w.fc, activation=model.config.activation)
        x = _linear(model, hidden, w.mlp_proj, residual=x)
        if not pre:
            x = _norm(model, x, w.ln_2)
        q, k, _ = split_heads(qkv[None], NH)
        layers.append(Layer((q @ k.swapaxes(-1, -2))[0], maps[0], attention, x))

    final = _norm(model, x, weights.ln_f)
    return Trace(tokens, embedding, layers, final, _head(model, final))


def lens(model: GPT, found: Trace) -> Array:
    """Return the logit lens: what the head makes of each stage, as probabilities (2 layers + 2, T, V).

    Each stage of the stream gets ln_f, with mean and variance of its own, before the head. The last row is the softmax
    of the logits.
    """
    logits = [_head(model, _norm(model, stream, model.parameters.ln_f)) for stream in found.streams()]
    return np.stack([probabilities(each) for each in (*logits, found.logits)])


def probabilities(logits: Array) -> Array:
    """Return the softmax (..., V) of logits (..., V)."""
    return softmax(logits)[0]


def surprise(found: Trace) -> Array:
    """Return -log p of each character but the first, given those before it: (T - 1,), in nats."""
    after = found.logits[:-1]
    rows = np.arange(len(after))
    result: Array = softmax(after)[1] - after[rows, found.tokens[1:]]
    return result


def best(distribution: Array, count: int = BEST) -> tuple[Array, Array]:
    """Return the `count` likeliest tokens of distributions (..., V), and their probabilities, the likeliest first."""
    if count == 1:
        order = distribution.argmax(axis=-1)[..., None]
        return order, np.take_along_axis(distribution, order, axis=-1)
    count = min(count, distribution.shape[-1])
    order = np.argsort(-distribution, axis=-1, kind="stable")[..., :count]
    return order, np.take_along_axis(distribution, order, axis=-1)


def _norm(model: GPT, inp: Array, affine: Affine) -> Array:
    out, (mean, rstd) = aligned_empty(inp.shape, inp.dtype), np.empty((2, len(inp)), inp.dtype)
    model.backend.layernorm_forward(out, mean, rstd, inp, *affine)
    return out


def _linear(model: GPT, inp: Array, affine: Affine, **options: Any) -> Array:
    out = aligned_empty((len(inp), affine.weight.shape[1]), inp.dtype)
    model.backend.linear_forward(out, inp, *affine, **options)
    return out


def _head(model: GPT, final: Array) -> Array:
    return _linear(model, final, Affine(model.parameters.head.T, None))
