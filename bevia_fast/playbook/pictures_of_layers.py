"""Pictures of the layers around attention: tokens, embeddings, linear layers, norms, activations, residuals, loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..canvas import BLUE, VERMILLION
from ..config import ModelConfig
from ..data.tokenizer import Tokenizer
from ..kernels import get_backend
from ..kernels.contract import Backend
from ..lab.cells import likeness
from ..model.activations import Activations
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .picture import Data, Picture
from .twins import namespace

Array = NDArray[Any]

DEPTH = ModelConfig(ctx=32, dim=64, layers=12, heads=4, vocab_size=65, dtype="float64")


def _numpy() -> Backend:
    return get_backend("numpy")


def tokens() -> Data:
    """The tokens of a short text, and its targets."""
    text = "to be or not to be"
    tokenizer = Tokenizer.from_text(text)
    ids = tokenizer.encode(text).tolist()
    return {"text": text[:-1], "tokens": ids[:-1], "targets": ids[1:], "alphabet": tokenizer.alphabet}


def draw_tokens(axes: Any, data: Data) -> None:
    places = range(len(data["tokens"]))
    axes.step(places, data["tokens"], where="mid", color=BLUE, label="token")
    axes.step(places, data["targets"], where="mid", color=VERMILLION, linestyle="--", label="target")
    axes.set_xticks(places, [c.replace(" ", "␣") for c in data["text"]])
    names = [f"{c.replace(' ', '␣')} = {i}" for i, c in enumerate(data["alphabet"])]
    axes.set_yticks(range(len(names)), names)
    axes.legend(loc="upper right")


def embedding_gradient() -> Data:
    """What the rows of the token table receive if every place sends 1."""
    tokenizer = Tokenizer.from_text("banana")
    ids = tokenizer.encode("banana")[None]
    table, positions = np.zeros((3, 1)), np.zeros((6, 1))
    _numpy().embedding_backward(table, positions, np.ones((1, 6, 1)), ids)
    return {"alphabet": tokenizer.alphabet, "gradient": table[:, 0], "positions": positions[:, 0]}


def draw_embedding_gradient(axes: Any, data: Data) -> None:
    axes[0].bar(list(data["alphabet"]), data["gradient"], color=BLUE)
    axes[0].set(xlabel="character", ylabel="gradient of its row")
    axes[1].bar(range(6), data["positions"], color=VERMILLION)
    axes[1].set(xlabel="position", ylabel="gradient of its row", ylim=(0, 3.1))


def finite_differences() -> Data:
    """The error of the slope of GELU at 0.5, measured with steps of several sizes in both precisions."""
    right = namespace()["slope"](0.5, "gelu")
    steps = [10.0 ** (-power / 2) for power in range(1, 25)]

    def error(h: float, dtype: str) -> float:
        out = np.empty((1, 2), dtype)
        _numpy().gelu_forward(out, np.array([[0.5 + h, 0.5 - h]], dtype))
        return abs((float(out[0, 0]) - float(out[0, 1])) / (2 * h) - float(right))

    def power(h: float, dtype: str) -> float:  # the errors at small steps are rounding, which differs between machines
        return round(math.log10(max(error(h, dtype), 1e-12)), 1)

    return {"steps": steps, **{dtype: [power(h, dtype) for h in steps] for dtype in ("float64", "float32")}}


def draw_finite_differences(axes: Any, data: Data) -> None:
    axes.plot(data["steps"], data["float64"], marker="o", markersize=3, color=BLUE, label="float64")
    axes.plot(data["steps"], data["float32"], marker="o", markersize=3, color=VERMILLION, label="float32")
    axes.set(xscale="log", xlabel="step h", ylabel="error (power of ten)")
    axes.legend()


def layernorm() -> Data:
    """Three rows before and after."""
    generator = np.random.default_rng(3)
    rows = np.stack([s * generator.normal(size=24) + m for s, m in ((0.3, 2.0), (1.0, 0.0), (3.0, -4.0))])
    out, mean, rstd = np.empty_like(rows), np.empty(3), np.empty(3)
    _numpy().layernorm_forward(out, mean, rstd, rows, np.ones(24), None)
    return {"before": rows, "after": out}


def draw_layernorm(axes: Any, data: Data) -> None:
    for panel, name in zip(axes, ("before", "after"), strict=True):
        for row, color in zip(data[name], (BLUE, VERMILLION, "#009E73"), strict=True):
            panel.plot(row, color=color)
        panel.set(xlabel="channel", title=name)
    axes[0].set_ylabel("value")


def activations() -> Data:
    """ReLU and GELU with their slopes."""
    x = np.linspace(-4, 4, 161)[None]
    found: dict[str, Any] = {"x": x[0]}
    for name in ("relu", "gelu"):
        out, dinp = np.empty_like(x), np.empty_like(x)
        getattr(_numpy(), f"{name}_forward")(out, x)
        getattr(_numpy(), f"{name}_backward")(dinp, np.ones_like(x), x)
        found |= {name: out[0], f"{name}_slope": dinp[0]}
    return found


def draw_activations(axes: Any, data: Data) -> None:
    for panel, ending, title in ((axes[0], "", "value"), (axes[1], "_slope", "slope")):
        panel.plot(data["x"], data[f"relu{ending}"], color=BLUE, label="ReLU")
        panel.plot(data["x"], data[f"gelu{ending}"], color=VERMILLION, label="GELU")
        panel.set(xlabel="x", title=title)
        panel.legend()


def squared_relu() -> Data:
    """ReLU, its square, and their slopes."""
    x = np.linspace(-2, 2, 81)
    return {"x": x, "relu": np.maximum(x, 0), "square": np.maximum(x, 0) ** 2, "slope": 2 * np.maximum(x, 0)}


def draw_squared_relu(axes: Any, data: Data) -> None:
    axes.plot(data["x"], data["relu"], color=BLUE, label="ReLU")
    axes.plot(data["x"], data["square"], color=VERMILLION, label="ReLU squared")
    axes.plot(data["x"], data["slope"], color=VERMILLION, linestyle="--", label="its slope")
    axes.set(xlabel="x", ylabel="value")
    axes.legend()


def _batch() -> tuple[Any, Any]:
    generator = np.random.default_rng(5)
    return generator.integers(0, 65, (4, 32)), generator.integers(0, 65, (4, 32))


def residuals() -> Data:
    """An untrained model with and without residuals: the norm of the gradient of each layer's qkv weights, and the mean
    cosine between the rows of different positions after each block.
    """
    found: dict[str, Any] = {"layer": list(range(DEPTH.layers))}
    ids, targets = _batch()
    for name, config in (("with", DEPTH), ("without", replace(DEPTH, residual=False))):
        gradients, acts = Parameters(DEPTH), Activations(DEPTH, *ids.shape)
        model = GPT(config, _numpy(), Parameters.initial(DEPTH, 1))
        model.loss_and_gradients(ids, targets, gradients)
        found[name] = [float(np.linalg.norm(gradients[f"h.{layer}.attn.c_attn.weight"])) for layer in found["layer"]]
        model.forward(acts, np.asarray(ids, np.int32))
        stream = [acts.embedded, *(block.residual_out for block in acts.blocks)]
        found[f"alike_{name}"] = [
            float(np.mean([likeness(rows) for rows in acts.sequences(after)])) for after in stream
        ]
    return found


def draw_residuals(axes: Any, data: Data) -> None:
    for name, color in (("with", BLUE), ("without", VERMILLION)):
        axes[0].plot(data["layer"], data[name], marker="o", color=color, label=f"{name} residuals")
        axes[1].plot(range(len(data["layer"]) + 1), data[f"alike_{name}"], marker="o", color=color)
    axes[0].set(yscale="log", xlabel="layer", ylabel="norm of the gradient of qkv")
    axes[0].legend(loc="center")
    axes[1].set(xlabel="blocks passed", ylabel="cosine between positions", ylim=(-0.05, 1.05))


def norms() -> Data:
    """The root mean square of the stream after each block of an untrained model."""
    found: dict[str, Any] = {"layer": list(range(DEPTH.layers + 1))}
    for norm in ("pre", "post"):
        config = ModelConfig(**{**vars(DEPTH), "norm": norm})
        weights = Parameters.initial(config, 1)
        for name, view in weights.items():  # larger, as after some training
            if name.startswith("h.") and len(view.shape) == 2:
                view *= 5
        acts = Activations(config, 4, 32)
        GPT(config, _numpy(), weights).forward(acts, np.asarray(_batch()[0], np.int32))
        stream = [acts.embedded, *(block.residual_out for block in acts.blocks)]
        found[norm] = [float(np.sqrt(np.mean(x * x))) for x in stream]
    return found


def draw_norms(axes: Any, data: Data) -> None:
    axes.plot(data["layer"], data["pre"], marker="o", color=BLUE, label="pre-norm")
    axes.plot(data["layer"], data["post"], marker="o", color=VERMILLION, label="post-norm")
    axes.set(xlabel="blocks passed", ylabel="root mean square of the stream")
    axes.legend()


def cross_entropy() -> Data:
    """The probabilities of five characters, and the gradient of their logits."""
    logits, losses, gradient = np.array([[2.0, 1.0, 0.5, 0.0, -1.0]]), np.empty(1), np.empty((1, 5))
    _numpy().cross_entropy(losses, gradient, logits, np.array([1], np.int32))
    probabilities = gradient[0] + np.eye(5)[1]
    return {"characters": list("eaotz"), "probabilities": probabilities, "gradient": gradient[0], "loss": losses}


def draw_cross_entropy(axes: Any, data: Data) -> None:
    axes[0].bar(data["characters"], data["probabilities"], color=BLUE)
    axes[0].set(title="probability; the target is a", ylim=(-0.8, 0.8))
    axes[1].bar(data["characters"], data["gradient"], color=VERMILLION)
    axes[1].set(title="gradient of the logit", ylim=(-0.8, 0.8))
    axes[1].axhline(0, color="0.5", linewidth=0.8)


def block_gradients() -> Data:
    """All gradients of a block's weights: by the twins, and by finite differences of the engine's forward pass."""
    config = ModelConfig(ctx=3, dim=4, layers=1, heads=2, vocab_size=5, dtype="float64")
    weights, gradients = Parameters(config), Parameters(config)
    generator = np.random.default_rng(6)
    for name, view in weights.items():
        view[...] = generator.normal(1.0 if name.endswith(("ln_1.weight", "ln_2.weight")) else 0.0, 0.5, view.shape)
    model, ids = GPT(config, _numpy(), weights), (np.array([[0, 3, 1]]), np.array([[3, 1, 4]]))
    model.loss_and_gradients(*ids, gradients)
    slope_of = namespace()["slope_of"]
    backward, measured = list[float](), list[float]()
    for name in (name for name in weights if name.startswith("h.")):
        flat, right = weights[name].reshape(-1), gradients[name].reshape(-1)
        for i in range(flat.size):
            measured.append(float(slope_of(lambda: model.loss(*ids), flat, i)))
            backward.append(float(right[i]))
    return {"backward": backward, "measured": measured}


def draw_block_gradients(axes: Any, data: Data) -> None:
    limits = [min(data["backward"]), max(data["backward"])]
    axes.plot(limits, limits, color="0.7", linewidth=0.8)
    axes.plot(data["backward"], data["measured"], ".", color=BLUE, markersize=3)
    axes.set(xlabel="backward pass", ylabel="finite difference")


PICTURES = {
    "tokens": Picture(tokens, draw_tokens),
    "embedding-gradient": Picture(embedding_gradient, draw_embedding_gradient, 2),
    "finite-differences": Picture(finite_differences, draw_finite_differences, tolerance=0.1),
    "layernorm": Picture(layernorm, draw_layernorm, 2),
    "activations": Picture(activations, draw_activations, 2),
    "squared-relu": Picture(squared_relu, draw_squared_relu),
    "residuals": Picture(residuals, draw_residuals, 2),
    "norms": Picture(norms, draw_norms),
    "cross-entropy": Picture(cross_entropy, draw_cross_entropy, 2),
    "block-gradients": Picture(block_gradients, draw_block_gradients, height=4.0),
}
