"""Generation with a key/value cache: only the newest token passes through the transformer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import contract
from ..bfloat16 import halves, operand, widened
from ..contract import Activation, Array, Norm, Precision, implements
from ..rng import uniform
from ..windows import places_of, ring_place, rings
from .attention import rounded_weights, softmax
from .layernorm import layernorm_forward
from .linear import ACTIVATIONS
from .rotary import rotate
from .sampling import sample_token


@implements(contract.decode_tokens)
def decode_tokens(
    drawn: Array, logits: Array, keys: Array, values: Array, token: int, index: int,
    token_table: Array, position_table: Array | None,
    ln_1_weight: Array, ln_1_bias: Array | None, qkv_weight: Array, qkv_bias: Array | None,
    attn_proj_weight: Array, attn_proj_bias: Array | None,
    ln_2_weight: Array, ln_2_bias: Array | None, fc_weight: Array, fc_bias: Array | None,
    mlp_proj_weight: Array, mlp_proj_bias: Array | None,
    ln_f_weight: Array, ln_f_bias: Array | None, head: Array,
    cosines: Array | None = None, sines: Array | None = None,
    *, norm: Norm, activation: Activation, temperature: float, top_k: int, top_p: float, key: int, draw: int,
    windows: tuple[int, ...] = (), residual: bool = True, precision: Precision = "float32",
) -> int:  # fmt: skip
    # keys and values (K,L,NH,S,HS), weights (L,...) -> drawn (D,), logits (V,)
    contract.check_decoding(keys, (position_table, cosines, sines), len(token_table), token, index)
    L, NH, S, HS = keys.shape[1:]
    contract.check_windows(L, windows)
    sizes = rings(windows, L, S)
    if precision == "bf16":
        given = qkv_weight, attn_proj_weight, fc_weight, mlp_proj_weight, head
        qkv_weight, attn_proj_weight, fc_weight, mlp_proj_weight, head = map(widened, given)
        stored = keys, values
        keys, values = widened(keys), widened(values)
    for number in range(drawn.size):
        # The next token is drawn from the place that comes last; a place in the next window is filled for later tokens.
        for window, place in [(0, index + number)] if cosines is not None else reversed(places_of(index + number, S)):
            k_cache, v_cache = keys[window % len(keys)], values[window % len(keys)]  # (L,NH,S,HS)
            x = token_table[token]  # (C,)
            if position_table is not None:
                x = x + position_table[place]
            for layer, size in enumerate(sizes):
                normed = x if norm == "post" else _norm(x, ln_1_weight[layer], _of(ln_1_bias, layer))

                # heads: (C,) @ (NH,C,3*HS) -> (NH,3*HS);  attention;  (NH,1,HS) @ (NH,HS,C), summed over the heads
                qkv = operand(normed, precision) @ qkv_weight[layer] + _of(qkv_bias, layer, 0)
                if cosines is not None and sines is not None:
                    rotate(qkv.reshape(NH, 3, 2, -1)[:, :2], cosines[number], sines[number])  # q and k, not v
                q, k, v = operand(qkv, precision).reshape(NH, 3, HS).swapaxes(0, 1)
                newest, seen = ring_place(place, size)
                k_cache[layer, :, newest], v_cache[layer, :, newest] = k, v
                scores = q[:, None] @ k_cache[layer, :, :seen].swapaxes(-1, -2) / math.sqrt(HS)  # (NH,1,seen)
                weights, lse = softmax(scores)
                if precision == "bf16":
                    for cache, one in zip(stored, (k, v), strict=True):
                        cache[window % len(keys)][layer, :, newest] = halves(one)
                    weights = rounded_weights(weights, lse)
                attended = operand(weights @ v_cache[layer, :, :seen], precision)
                branch = (attended @ attn_proj_weight[layer]).sum(axis=0)[0] + _of(attn_proj_bias, layer, 0)
                x = x + branch if residual else branch
                if norm == "post":
                    x = _norm(x, ln_1_weight[layer], _of(ln_1_bias, layer))
                normed = x if norm == "post" else _norm(x, ln_2_weight[layer], _of(ln_2_bias, layer))

                # hidden units: (C,) @ (G,C,M) -> (G,M);  (G,1,M) @ (G,M,C), summed over the groups
                hidden = ACTIVATIONS[activation](operand(normed, precision) @ fc_weight[layer] + _of(fc_bias, layer, 0))
                hidden = operand(hidden, precision)
                branch = (hidden[:, None] @ mlp_proj_weight[layer]).sum(axis=0)[0] + _of(mlp_proj_bias, layer, 0)
                x = x + branch if residual else branch
                if norm == "post":
                    x = _norm(x, ln_2_weight[layer], _of(ln_2_bias, layer))
        logits[...] = head @ operand(_norm(x, ln_f_weight, ln_f_bias), precision)
        token = sample_token(
            logits, temperature=temperature, top_k=top_k, top_p=top_p, noise=uniform(key, draw + number)
        )
        if token < 0:
            return number
        drawn[number] = token
    return drawn.size


def _norm(x: Array, weight: Array, bias: Array | None) -> Array:
    """Layer normalization of one row, (C,) -> (C,)."""
    out = np.empty_like(x)
    mean, rstd = np.empty((2, 1), x.dtype)
    layernorm_forward(out[None], mean, rstd, x[None], weight, bias)
    return out


def _of(bias: Array | None, layer: int, missing: int | None = None) -> Any:
    """The bias of a layer, or `missing` if there are no biases."""
    return missing if bias is None else bias[layer]
