"""The inputs and settings of the golden results: what both PyTorch and the kernels are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

HEADS = 3
WINDOW, IN_WINDOWS = 2, 4  # positions of a window, and of the sequence that is seen through such
EPS = 1e-5
ADAMW: dict[str, Any] = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8}  # PyTorch's names
WEIGHT_DECAY = 0.1
MAX_NORM = 1.0
ADAMW_STEPS = 5
MUON: dict[str, Any] = {"lr": 2e-2, "momentum": 0.95}
MUON_STEPS = 3

CTX, DIM, LAYERS, MODEL_HEADS, VOCAB, BATCH, BATCHES = 16, 32, 2, 4, 11, 3, 10
# normalization, activation, and whether the output projection is the token embedding
MODELS: dict[str, Any] = {"pre-gelu-tied": ("pre", "gelu", True), "post-relu-untied": ("post", "relu", False)}


def make_inputs(seed: int) -> dict[str, Array]:
    """Random arrays for the single operations, by the names `operation.array`."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return random.normal(size=shape).astype(np.float32)

    def ids(below: int, *shape: int) -> Array:
        return random.integers(0, below, shape).astype(np.int32)

    N, C, OC, B, T, V, P = 11, 19, 23, 2, 17, 11, 40
    inputs = {"layer_norm.inp": normal(N, C), "layer_norm.weight": normal(C), "layer_norm.bias": normal(C)}
    inputs |= {"layer_norm.dout": normal(N, C)}
    inputs |= {"linear_gelu.inp": normal(N, C), "linear_gelu.weight": normal(C, OC), "linear_gelu.bias": normal(OC)}
    inputs |= {"linear_gelu.dout": normal(N, OC)}
    inputs |= {"attention.qkv": normal(B, T, 3 * HEADS * 7), "attention.dout": normal(B, T, HEADS * 7)}
    inputs |= {"cross_entropy.logits": 3 * normal(N, V), "cross_entropy.targets": ids(V, N)}
    inputs |= {"embedding.tokens": ids(V, B, T), "embedding.token_table": normal(V, C)}
    inputs |= {"embedding.position_table": normal(T, C), "embedding.dout": normal(B, T, C)}
    inputs |= {"adamw.parameters": normal(P), "adamw.gradients": normal(ADAMW_STEPS, P)}
    for name, rows, columns in (("muon_wide", V, C), ("muon_tall", OC, V)):
        inputs |= {f"{name}.parameters": normal(rows, columns), f"{name}.gradients": normal(MUON_STEPS, rows, columns)}
    inputs |= {"rotary.qkv": normal(1, 4, 3 * HEADS * 4), "rotary.dout": normal(1, 4, HEADS * 4)}
    return inputs


def make_model_inputs(seed: int) -> dict[str, Array]:
    """Weights by GPT-2's names, with linear weights input x output, and batches. Large weights: no term is nearly 0."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, std: float) -> Array:
        return random.normal(0.0, std, shape).astype(np.float32)

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Array]:
        return {
            f"{name}.weight": normal(inputs, outputs, std=0.7 / math.sqrt(inputs)),
            f"{name}.bias": normal(outputs, std=0.1),
        }

    def norm(name: str) -> dict[str, Array]:
        return {f"{name}.weight": 1 + normal(DIM, std=0.1), f"{name}.bias": normal(DIM, std=0.1)}

    weights = {"wte.weight": normal(VOCAB, DIM, std=0.3), "wpe.weight": normal(CTX, DIM, std=0.3)}
    for layer in range(LAYERS):
        weights |= norm(f"h.{layer}.ln_1") | norm(f"h.{layer}.ln_2")
        weights |= linear(f"h.{layer}.attn.c_attn", DIM, 3 * DIM) | linear(f"h.{layer}.attn.c_proj", DIM, DIM)
        weights |= linear(f"h.{layer}.mlp.c_fc", DIM, 4 * DIM) | linear(f"h.{layer}.mlp.c_proj", 4 * DIM, DIM)
    weights |= norm("ln_f")
    weights["lm_head.weight"] = normal(VOCAB, DIM, std=0.3)
    tokens = random.integers(0, VOCAB, (BATCHES, BATCH, CTX + 1)).astype(np.int32)
    return {f"model.{name}": array for name, array in weights.items()} | {"model.tokens": tokens}
