"""Pictures of attention: the lookup, the scale, the mask, the softmax, heads, gradients of scores, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..canvas import BLUE, VERMILLION
from ..config import ModelConfig
from ..kernels import get_backend
from ..kernels.contract import Backend
from ..model.changes import changed
from .picture import Data, Picture
from .twins import namespace

Array = NDArray[Any]


def _weights(qkv: Array, heads: int, backend: Backend | None = None, rows: int = 0, first: int = 0) -> Array:
    """The attention weights (heads, R, T) of one sequence qkv (T,3C); by default of all its queries."""
    T = len(qkv)
    weights = np.empty((1, heads, rows or T, T))
    (backend or get_backend("numpy")).attention_weights(weights, qkv[None], first)
    found: Array = weights[0]
    return found


def soft_lookup() -> Data:
    """The weights of two keys at right angles, for a query that turns from one to the other."""
    look_up = namespace("04-attention")["look_up"]
    angles = np.linspace(0, 90, 46)
    found: dict[str, Any] = {"angle": angles}
    for length in (1, 5):
        found[f"weight_{length}"] = [
            look_up([length * np.cos(a), length * np.sin(a)], [[1, 0], [0, 1]], [[0], [1]])[0][1]
            for a in np.radians(angles)
        ]
    return found


def draw_soft_lookup(axes: Any, data: Data) -> None:
    axes.plot(data["angle"], data["weight_1"], color=BLUE, label="query of length 1")
    axes.plot(data["angle"], data["weight_5"], color=VERMILLION, label="query of length 5")
    axes.set(xlabel="angle from the first key (degrees)", ylabel="weight of the second value", ylim=(0, 1))
    axes.legend()


def scale() -> Data:
    """The exponential of the entropy of the weights of 64 random keys, with and without the scale, by head size."""
    sizes = [4, 8, 16, 32, 64, 128]
    found: dict[str, Any] = {"head_size": sizes, "with": [], "without": []}
    for HS in sizes:
        for name, scale in (("with", True), ("without", False)):
            backend = changed(get_backend("numpy"), ModelConfig(scale=scale))
            entropies = []
            for seed in range(40):
                qkv = np.random.default_rng([HS, seed]).normal(size=(64, 3 * HS))
                row = _weights(qkv, 1, backend, 1, 63)[0, 0]
                entropies.append(float(-(row[row > 0] * np.log(row[row > 0])).sum()))
            found[name].append(float(np.exp(np.mean(entropies))))
    return found


def draw_scale(axes: Any, data: Data) -> None:
    axes.plot(data["head_size"], data["with"], marker="o", color=BLUE, label="q · k / √HS")
    axes.plot(data["head_size"], data["without"], marker="o", color=VERMILLION, label="q · k")
    axes.set(xscale="log", xlabel="head size", ylabel="keys that share the attention", ylim=(0, 64))
    axes.set_xticks(data["head_size"], [str(size) for size in data["head_size"]])
    axes.minorticks_off()
    axes.legend()


def _draw_map(axes: Any, weights: Any, title: str = "") -> None:
    shown = np.ma.masked_array(np.array(weights), np.triu(np.ones(np.shape(weights), np.bool_), 1))
    axes.imshow(shown, cmap="viridis", vmin=0, vmax=1)
    axes.set_facecolor("0.93")
    axes.set(xlabel="key", ylabel="query", title=title)


def mask() -> Data:
    """The weights of 12 random queries and keys."""
    return {"weights": _weights(np.random.default_rng(1).normal(size=(12, 24)), 1)[0]}


def draw_mask(axes: Any, data: Data) -> None:
    _draw_map(axes, data["weights"])


def heads() -> Data:
    """The weights of two heads of the same random input."""
    return {"weights": _weights(2 * np.random.default_rng(2).normal(size=(12, 24)), 2)}


def draw_heads(axes: Any, data: Data) -> None:
    for h, panel in enumerate(axes):
        _draw_map(panel, data["weights"][h], f"head {h}")


def maps() -> Data:
    """The weights of two heads, and the sums of their rows."""
    weights = _weights(1.5 * np.random.default_rng(8).normal(size=(10, 24)), 2)
    return {"weights": weights, "row_sums": weights.sum(axis=2)}


def softmax() -> Data:
    """The sum of the weights of the scores x and x - 1 in float32: by the naive formula, and by the engine."""
    points = list(range(0, 121, 4))
    naive, ours = [], []
    for x in points:
        row = np.array([[x, x - 1]], np.float32)
        with np.errstate(all="ignore"):
            exponentials = np.exp(row)
            total = float((exponentials / exponentials.sum()).sum())
        naive.append(round(total, 4) if np.isfinite(total) else -1.0)  # JSON has no NaN
        losses, gradient = np.empty(1, np.float32), np.empty((1, 2), np.float32)
        get_backend("numpy").cross_entropy(losses, gradient, row, np.array([0], np.int32))
        ours.append(round(float(gradient.sum()) + 1, 4))
    return {"score": points, "naive": naive, "engine": ours}


def draw_softmax(axes: Any, data: Data) -> None:
    axes.plot(data["score"], data["engine"], color=BLUE, linewidth=3, label="minus the maximum")
    fine = [(x, y) for x, y in zip(data["score"], data["naive"], strict=True) if y >= 0]
    axes.plot(*zip(*fine, strict=True), color=VERMILLION, label="naive")
    axes.axvline(fine[-1][0], color=VERMILLION, linestyle=":", label="from here on: not a number")
    axes.set(xlabel="score", ylabel="sum of the weights", ylim=(0, 1.5))
    axes.legend(loc="lower left")


def score_gradients() -> Data:
    """The gradients of all scores of a random sequence, from the chapter's formula, and the sums of the rows."""
    generator = np.random.default_rng(4)
    qkv, dout = generator.normal(size=(12, 24)), generator.normal(size=(12, 8))
    weights = _weights(qkv, 1)[0]
    dweights = dout @ qkv[:, 16:].T
    dscores = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
    # the same from the engine: dq = dscores k / sqrt(HS)
    out, lse, dqkv = np.empty((1, 12, 8)), np.empty((1, 1, 12)), np.empty((1, 12, 24))
    get_backend("numpy").attention_forward(out, lse, qkv[None])
    get_backend("numpy").attention_backward(dqkv, dout[None], qkv[None], out, lse)
    difference = float(np.abs(dqkv[0, :, :8] - dscores @ qkv[:, 8:16] / np.sqrt(8)).max())
    return {"dscores": dscores, "row_sums": np.round(dscores.sum(axis=1), 9), "from_engine": round(difference, 9)}


def draw_score_gradients(axes: Any, data: Data) -> None:
    values = np.array(data["dscores"])
    limit = np.abs(values).max()
    shown = np.ma.masked_array(values, np.triu(np.ones(values.shape, np.bool_), 1))
    image = axes.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.set_facecolor("0.93")
    axes.set(xlabel="key", ylabel="query")
    axes.figure.colorbar(image, ax=axes, label="gradient of the score")


def memory() -> Data:
    """Bytes of the weights of one head and sequence in float32, and of what is kept instead, by context."""
    contexts = [2**power for power in range(6, 18)]
    return {"ctx": contexts, "weights": [4 * T * T for T in contexts], "lse": [4 * T for T in contexts]}


def draw_memory(axes: Any, data: Data) -> None:
    axes.plot(data["ctx"], data["weights"], marker="o", color=VERMILLION, label="all weights, T × T")
    axes.plot(data["ctx"], data["lse"], marker="o", color=BLUE, label="lse, T")
    axes.set(xscale="log", yscale="log", xlabel="context length T", ylabel="bytes for one head")
    axes.legend()


PICTURES = {
    "soft-lookup": Picture(soft_lookup, draw_soft_lookup),
    "scale": Picture(scale, draw_scale),
    "mask": Picture(mask, draw_mask, height=3.8),
    "softmax": Picture(softmax, draw_softmax),
    "heads": Picture(heads, draw_heads, 2, 3.8),
    "maps": Picture(maps, draw_heads, 2, 3.8),
    "score-gradients": Picture(score_gradients, draw_score_gradients, height=3.8),
    "memory": Picture(memory, draw_memory),
}
