"""Where each number of a page comes from: its formula, and the line of the readable kernels that computes it."""

from __future__ import annotations

import ast
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from ..kernels import numpy_ref


class Anchor(NamedTuple):
    """A line of `kernels/numpy_ref/`: its file and function there, and a text that only this line of it contains."""

    formula: str
    module: str
    function: str
    snippet: str


LINEAR = ("linear", "linear_forward", "result = inp @ weight")

# The operations in the order in which a number passes through them. The letters are those of the kernels.
ANCHORS: dict[str, Anchor] = {
    "embedding": Anchor(
        "x[t] = wte[token[t]] + wpe[t]",
        "embedding", "embedding_forward", "out[...] = token_table[tokens] + position_table",
    ),
    "layernorm": Anchor(
        "out = (x - mean(x)) / sqrt(variance(x) + 1e-5) * weight + bias",
        "layernorm", "layernorm_forward", "norm = centered * rstd[:, None]",
    ),
    "qkv": Anchor("q, k, v = split(x @ W + b)", *LINEAR),
    "rotary": Anchor(
        "q[i], q[i+H] = q[i] cos - q[i+H] sin, q[i+H] cos + q[i] sin",
        "rotary", "rotate", "pairs[..., 0, :] = first * cosines - second * sines",
    ),
    "scores": Anchor(
        "score[i, j] = q[i] · k[j]",
        "attention", "causal_scores", "scores = q @ k.swapaxes(-1, -2) / math.sqrt(HS)",
    ),
    "scale": Anchor(
        "scaled[i, j] = score[i, j] / sqrt(HS)",
        "attention", "causal_scores", "scores = q @ k.swapaxes(-1, -2) / math.sqrt(HS)",
    ),
    "no_scale": Anchor(  # see model/changes.py
        "scaled[i, j] = (sqrt(HS) q[i]) · k[j] / sqrt(HS) = score[i, j]",
        "attention", "causal_scores", "scores = q @ k.swapaxes(-1, -2) / math.sqrt(HS)",
    ),
    "mask": Anchor("scaled[i, j] = -inf where j > i", "attention", "causal_scores", "scores[:, :, unseen] = -np.inf"),
    "softmax": Anchor(
        "weight[i, j] = exp(scaled[i, j] - max) / sum of exp(scaled[i, :] - max)",
        "attention", "softmax", "return exponentials / total",
    ),
    "mix": Anchor(
        "mixed[i] = sum over j of weight[i, j] v[j]",
        "attention", "attention_forward", "out[...] = merge_heads(weights @ v)",
    ),
    "projection": Anchor("attention = mixed @ W + b", *LINEAR),
    "residual": Anchor("x = x + branch", "linear", "linear_forward", "result = result + residual"),
    "no_residual": Anchor("x = branch", *LINEAR),  # see model/changes.py
    "mlp_in": Anchor("hidden = x @ W + b", *LINEAR),
    "gelu": Anchor(
        "gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))",
        "activation", "gelu", "result: Array = 0.5 * x * (1 + np.tanh(u))",
    ),
    "gelu_erf": Anchor(
        "gelu_erf(x) = x/2 (1 + erf(x / sqrt(2)))",
        "activation", "gelu_erf", "return x * normal_cdf(x)",
    ),
    "relu": Anchor("relu(x) = max(x, 0)", "activation", "relu", "result: Array = np.maximum(x, 0)"),
    "mlp_out": Anchor("mlp = activated @ W + b", *LINEAR),
    "final_norm": Anchor(
        "final = (x - mean(x)) / sqrt(variance(x) + 1e-5) * weight + bias",
        "layernorm", "layernorm_forward", "norm = centered * rstd[:, None]",
    ),
    "logits": Anchor("logit[v] = final · head[v]", *LINEAR),
    "probabilities": Anchor(
        "p[v] = exp(logit[v] - max) / sum of exp(logit - max)",
        "attention", "softmax", "return exponentials / total",
    ),
    "sampling": Anchor(
        "p[v] = exp((logit[v] - max) / temperature) / sum over the kept characters",
        "sampling", "sample_token", "weights[order] = [math.exp(score) for score in scores[order]]",
    ),
    "surprise": Anchor(
        "surprise = -log p[next character]",
        "cross_entropy", "cross_entropy", "losses[...] = np.log(total) - shifted[rows, targets]",
    ),
}  # fmt: skip


def located() -> dict[str, dict[str, object]]:
    """Return each operation's formula, file, function, line of source and number of that line.

    Raises ValueError if a snippet is not on exactly one line of its function.
    """
    found: dict[str, dict[str, object]] = {}
    for operation, anchor in ANCHORS.items():
        lines = [(number, line) for number, line in _lines(anchor.module, anchor.function) if anchor.snippet in line]
        if len(lines) != 1:
            raise ValueError(f"{anchor.snippet!r} is on {len(lines)} lines of {anchor.module}.{anchor.function}")
        [(number, line)] = lines
        found[operation] = {
            "formula": anchor.formula, "file": f"kernels/numpy_ref/{anchor.module}.py", "function": anchor.function,
            "snippet": line.strip(), "line": number,
        }  # fmt: skip
    return found


@cache
def _lines(module: str, function: str) -> list[tuple[int, str]]:
    """Return the lines of a function of the readable kernels, with their numbers."""
    text = (files(numpy_ref) / f"{module}.py").read_text("utf-8")
    [node] = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == function]
    return list(enumerate(text.splitlines(), 1))[node.lineno - 1 : node.end_lineno]
