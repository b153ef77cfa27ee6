"""Every stage of the forward pass in plain NumPy: what the page has to compute, written apart from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bevia_fast.model.parameters import Parameters

Array = NDArray[Any]
EPSILON = 1e-5


def normed(x: Array, weights: Parameters, name: str) -> Array:
    """Layer normalization of rows (T, C)."""
    centered = x - x.mean(axis=-1, keepdims=True)
    out = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + EPSILON) * weights[f"{name}.weight"]
    return out + weights.get(f"{name}.bias", 0.0)


def product(x: Array, weights: Parameters, name: str) -> Array:
    return x @ weights[f"{name}.weight"] + weights.get(f"{name}.bias", 0.0)


def rotated(x: Array, heads: int) -> Array:
    """Rotary positions of queries or keys (T, C), as products of complex numbers."""
    T, C = x.shape
    first, second = x.reshape(T, heads, 2, -1).swapaxes(0, 2)
    H = C // heads // 2
    turned = (first + 1j * second) * np.exp(1j * np.arange(T)[:, None] * 10_000.0 ** (-np.arange(H) / H))
    return np.stack([turned.real, turned.imag], axis=2).swapaxes(0, 1).reshape(T, C)


def softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def stages(weights: Parameters, tokens: Array) -> dict[str, Array]:
    """Return all stages by their names in the page; those of block 1 are called `1.<name>`."""
    c, T = weights.config, len(tokens)
    pre = c.norm == "pre"
    x = weights["wte.weight"][tokens]
    if c.positions == "learned":
        x = x + weights["wpe.weight"][:T]
    found = {"embedding": x}
    for layer in range(c.layers):
        h, at = f"h.{layer}", f"{layer}."
        found[at + "norm1"] = normed(x, weights, f"{h}.ln_1")
        qkv = product(found[at + "norm1"] if pre else x, weights, f"{h}.attn.c_attn")
        q, k, v = np.split(qkv, 3, axis=1)
        if c.positions == "rotary":
            q, k = rotated(q, c.heads), rotated(k, c.heads)
        heads = [each.reshape(T, c.heads, -1).swapaxes(0, 1) for each in (q, k, v)]
        scores = heads[0] @ heads[1].swapaxes(1, 2)
        seen = np.tri(T, dtype=bool) & ~np.tri(T, k=-(c.windows[layer] or T), dtype=bool)
        scaled = np.where(seen, scores / (math.sqrt(c.head_size) if c.scale else 1), -np.inf)
        attention = softmax(scaled)
        mixed = (attention @ heads[2]).swapaxes(0, 1).reshape(T, c.dim)
        branch = product(mixed, weights, f"{h}.attn.c_proj")
        sum1 = x + branch if c.residual else branch
        if not pre:
            found[at + "norm1"] = normed(sum1, weights, f"{h}.ln_1")
        stream1 = sum1 if pre else found[at + "norm1"]
        norm2 = normed(stream1, weights, f"{h}.ln_2")
        hidden = product(norm2 if pre else stream1, weights, f"{h}.mlp.c_fc")
        cubic = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
        activated = {
            "gelu": hidden / 2 * (1 + np.tanh(cubic)), "relu": np.where(hidden > 0, hidden, 0.0),
            "gelu_erf": hidden / 2 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))),
        }[c.activation]  # fmt: skip
        mlp = product(activated, weights, f"{h}.mlp.c_proj")
        sum2 = stream1 + mlp if c.residual else mlp
        if not pre:
            norm2 = normed(sum2, weights, f"{h}.ln_2")
        x = stream2 = sum2 if pre else norm2
        named = {
            "q": q, "k": k, "v": v, "scores": scores, "scaled": scaled, "weights": attention, "mixed": mixed,
            "attention": branch, "sum1": sum1, "stream1": stream1, "norm2": norm2, "hidden": hidden,
            "activated": activated, "mlp": mlp, "sum2": sum2, "stream2": stream2,
        }  # fmt: skip
        found |= {at + name: value for name, value in named.items()}
    found["final"] = normed(x, weights, "ln_f")
    found["logits"] = found["final"] @ weights.head.T
    found["probabilities"] = softmax(found["logits"])
    return found
