"""Generation with a key/value cache: only the newest position is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import Activations, Block
from .kernels.memory import aligned_empty
from .model import GPT

Array = NDArray[Any]


class Decoder:
    """Generation one token at a time: the keys and values of all earlier positions are kept in a cache.

    `keys`, `values`: a list over layers of (1, NH, ctx, HS).
    """

    def __init__(self, model: GPT) -> None:
        config = model.config
        self.model = model
        self.position = 0  # tokens in the cache
        shape = (1, config.heads, config.ctx, config.head_size)
        self.keys = [aligned_empty(shape, config.dtype) for _ in range(config.layers)]
        self.values = [aligned_empty(shape, config.dtype) for _ in range(config.layers)]
        self._block = Block(config, 1, 1, aligned_empty((1, config.dim), config.dtype))
        self._mean, self._rstd = aligned_empty((2, 1), config.dtype)
        self._final = aligned_empty((1, config.dim), config.dtype)
        self._logits = aligned_empty((1, config.vocab_size), config.dtype)
        self._reading: Activations | None = None

    def read(self, tokens: Array) -> Array:
        """Forget what was, and take in `tokens` (T,) int32, T <= ctx, at once; return the logits (V,) of the next one,
        in a buffer that the next call overwrites."""
        model, config, T = self.model, self.model.config, tokens.size
        if self._reading is None or self._reading.shape[1] != T:
            self._reading = Activations(config, 1, T)
        model._forward(self._reading, tokens.reshape(1, T), None)
        for layer, block in enumerate(self._reading.blocks):
            qkv = block.qkv.reshape(T, 3, config.heads, config.head_size)
            self.keys[layer][0, :, :T] = qkv[:, 1].swapaxes(0, 1)
            self.values[layer][0, :, :T] = qkv[:, 2].swapaxes(0, 1)
        self.position = T
        model.backend.linear_forward(self._logits, self._reading.final[-1:], model.parameters.head.T)
        logits: Array = self._logits[0]
        return logits

    def feed(self, token: int) -> Array:
        """Take in one more token; return the logits (V,) of the next one, in a buffer that the next call overwrites.

        Raises ValueError when the context is full.
        """
        model, block, position = self.model, self._block, self.position
        kernels, weights, config = model.backend, model.parameters, model.config
        if position == config.ctx:
            raise ValueError(f"the context of {config.ctx} tokens is full")
        x, mid, out = block.residual_in, block.residual_mid, block.residual_out
        kernels.embedding_forward(
            x.reshape(1, 1, -1), np.array([[token]], np.int32), weights["wte.weight"],
            weights["wpe.weight"][position : position + 1],
        )  # fmt: skip
        for layer in range(config.layers):
            pre, attn, mlp = config.norm == "pre", f"h.{layer}.attn", f"h.{layer}.mlp"
            inp = x
            if pre:
                inp = block.normed_1
                model._norm(inp, block.mean_1, block.rstd_1, x, f"h.{layer}.ln_1")
            kernels.linear_forward(block.qkv, inp, weights[f"{attn}.c_attn.weight"], weights.get(f"{attn}.c_attn.bias"))
            kernels.attention_decode(block.attended, self.keys[layer], self.values[layer], block.qkv, position)
            model._residual(mid, block.attended, f"{attn}.c_proj", x, None)
            inp = block.normed_2 if pre else block.normed_1
            model._norm(inp, block.mean_2, block.rstd_2, mid, f"h.{layer}.ln_2" if pre else f"h.{layer}.ln_1")
            kernels.linear_forward(
                block.activated, inp, weights[f"{mlp}.c_fc.weight"], weights.get(f"{mlp}.c_fc.bias"),
                activation=config.activation,
            )  # fmt: skip
            if pre:
                model._residual(out, block.activated, f"{mlp}.c_proj", mid, None)
                x, out = out, x
            else:
                model._residual(block.normed_2, block.activated, f"{mlp}.c_proj", inp, None)
                model._norm(x, block.mean_2, block.rstd_2, block.normed_2, f"h.{layer}.ln_2")
        model._norm(self._final, self._mean, self._rstd, x, "ln_f")
        kernels.linear_forward(self._logits, self._final, weights.head.T)
        self.position += 1
        logits: Array = self._logits[0]
        return logits
