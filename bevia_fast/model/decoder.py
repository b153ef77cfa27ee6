"""Generation with a key/value cache: each step computes the newest token only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import GenerateConfig
from ..kernels.bfloat16 import halves
from ..kernels.memory import aligned_empty
from ..kernels.rng import stream_key
from ..kernels.windows import rings, stride
from .activations import Activations, LayerActivations
from .changes import root
from .gpt import GPT
from .rotary import tables

Array = NDArray[Any]

GROUP = 128  # about how many hidden units form a group: a few vectors wide, and enough groups to share among threads


class Decoder:
    """Continues a text, with the keys and values of all earlier tokens in a cache.

    `keys` and `values` are (2, layers, NH, ctx, HS): those of the current window and of the next one, which fills up
    meanwhile. With rotary positions they are (1, layers, NH, S, HS), a ring of the last S tokens: ctx, or the window of
    attention if all layers have it. See `kernels.windows`. So memory does not grow with the length of the text.
    """

    def __init__(self, model: GPT) -> None:
        config = model.config
        self.model = model
        self.length = 0  # tokens of the text so far
        self.rotary = config.positions == "rotary"
        self.windows = config.windows
        self.rings = rings(self.windows, config.layers, config.ctx)
        places = max(self.rings) if self.rotary else config.ctx  # a table of positions has one for each
        shape = (1 if self.rotary else 2, config.layers, config.heads, places, config.head_size)
        self.rounded = config.precision == "bf16"  # weights of products and caches are bfloat16, as uint16
        kept = "uint16" if self.rounded else config.dtype
        self.keys, self.values = aligned_empty(shape, kept), aligned_empty(shape, kept)
        self.logits = aligned_empty(config.vocab_size, config.dtype)
        self.weights = _packed(model)

    def read(self, tokens: Array) -> Array:
        """Begin a new text with `tokens` (T,) int32, T <= ctx, and return the logits (V,) of the next token.

        The logits are in a buffer that later calls overwrite.
        """
        config, T = self.model.config, tokens.size
        ahead = stride(config.ctx)  # where the next window begins
        if ahead < T and not self.rotary:
            self._read_window(1, tokens[ahead:])
        x = self._read_window(0, tokens)[-1:]
        final, (mean, rstd) = np.empty_like(x), np.empty((2, 1), x.dtype)
        weights, kernels = self.model.parameters, self.model.backend
        kernels.layernorm_forward(final, mean, rstd, x, *weights.ln_f)
        kernels.linear_forward(self.logits[None], final, weights.head.T)
        self.length = T
        return self.logits

    def _read_window(self, window: int, tokens: Array) -> Array:
        """Fill one of the caches from its beginning, and return the last layer's output (T, C)."""
        config, T = self.model.config, tokens.size
        acts = Activations(config, 1, T, recompute=True)

        def copy_keys_and_values(kept: LayerActivations) -> None:
            ring = self.rings[kept.layer]
            newest = kept.qkv.reshape(T, 3, config.heads, config.head_size)[-ring:]
            places = np.arange(T - len(newest), T) % ring
            newest = halves(newest) if self.rounded else newest
            self.keys[window, kept.layer, :, places] = newest[:, 1]
            self.values[window, kept.layer, :, places] = newest[:, 2]

        self.model.forward(acts, tokens.reshape(1, T), copy_keys_and_values)
        stream: Array = acts.blocks[-1].residual_out
        return stream

    def write(self, drawn: Array, token: int, config: GenerateConfig, draw: int) -> int:
        """Append `token` to the text, and fill `drawn` (D,) int32 with the tokens that follow it.

        They are drawn with the random numbers from number `draw` on. Returns the number of tokens drawn: fewer than D
        if the logits of the next one are not finite.
        """
        model = self.model.config
        cosines, sines = tables(model, self.length, drawn.size) if self.rotary else (None, None)
        count = self.model.backend.decode_tokens(
            drawn, self.logits, self.keys, self.values, token, self.length, **self.weights,
            cosines=cosines, sines=sines, norm=model.norm, activation=model.activation, residual=model.residual,
            temperature=config.temperature, top_k=config.top_k, top_p=config.top_p,
            key=stream_key(config.seed, "sampling"), draw=draw, windows=self.windows,
        )  # fmt: skip
        self.length += drawn.size
        return count


def _packed(model: GPT) -> dict[str, Any]:
    """Return the weights for `decode_tokens`: all layers in one array, by heads and by groups of hidden units."""
    config, weights = model.config, model.parameters
    L, C, NH, HS = config.layers, config.dim, config.heads, config.head_size
    G = next(groups for groups in range(max(1, 4 * C // GROUP), 0, -1) if 4 * C % groups == 0)
    M = 4 * C // G

    def layers(name: str, split: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> Array | None:
        """Return the layers' arrays called `name` as one (L, *shape): each split into axes, and these put in order."""
        if f"h.0.{name}" not in weights:
            return None
        out = aligned_empty((L, *shape), config.dtype)
        for layer in range(L):
            part = weights[f"h.{layer}.{name}"].reshape(split).transpose(order)
            out[layer] = part.reshape(shape)
        return out

    def product(weight: Array | None) -> Array | None:
        """Round the weights of a product if the model does."""
        return halves(weight) if weight is not None and config.precision == "bf16" else weight

    def queries_scaled(qkv: Array | None) -> Array | None:
        """Without the scale, multiply the queries, the first HS of each last axis, by what attention divides by."""
        if qkv is not None and not config.scale:
            qkv[..., :HS] *= root(HS, qkv.dtype)
        return qkv

    def vectors(name: str) -> Array | None:
        return layers(name, (C,), (0,), (C,))

    return {
        "token_table": weights["wte.weight"],
        "position_table": weights.positions(config.ctx),
        "ln_1_weight": vectors("ln_1.weight"),
        "ln_1_bias": vectors("ln_1.bias"),
        "qkv_weight": product(
            queries_scaled(layers("attn.c_attn.weight", (C, 3, NH, HS), (2, 0, 1, 3), (NH, C, 3 * HS)))
        ),
        "qkv_bias": queries_scaled(layers("attn.c_attn.bias", (3, NH, HS), (1, 0, 2), (NH, 3 * HS))),
        "attn_proj_weight": product(layers("attn.c_proj.weight", (NH, HS, C), (0, 1, 2), (NH, HS, C))),
        "attn_proj_bias": vectors("attn.c_proj.bias"),
        "ln_2_weight": vectors("ln_2.weight"),
        "ln_2_bias": vectors("ln_2.bias"),
        "fc_weight": product(layers("mlp.c_fc.weight", (C, G, M), (1, 0, 2), (G, C, M))),
        "fc_bias": layers("mlp.c_fc.bias", (G, M), (0, 1), (G, M)),
        "mlp_proj_weight": product(layers("mlp.c_proj.weight", (G, M, C), (0, 1, 2), (G, M, C))),
        "mlp_proj_bias": vectors("mlp.c_proj.bias"),
        "ln_f_weight": weights.ln_f.weight,
        "ln_f_bias": weights.ln_f.bias,
        "head": product(weights.head),
    }
