"""Generation with a key/value cache: only the newest position is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import Activations
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
        self._one = Activations(config, 1, 1, recompute=True)
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
        final = model._norm(self._one, self._reading.blocks[-1].residual_out[-1:], "ln_f")
        model.backend.linear_forward(self._logits, final, model.parameters.head.T)
        logits: Array = self._logits[0]
        return logits

    def feed(self, token: int) -> Array:
        """Take in one more token; return the logits (V,) of the next one, in a buffer that the next call overwrites.

        Raises ValueError when the context is full.
        """
        model, acts, position = self.model, self._one, self.position
        kernels, weights, config = model.backend, model.parameters, model.config
        if position == config.ctx:
            raise ValueError(f"the context of {config.ctx} tokens is full")
        kernels.embedding_forward(
            acts.embedded.reshape(1, 1, -1), np.array([[token]], np.int32), weights["wte.weight"],
            weights["wpe.weight"][position : position + 1],
        )  # fmt: skip
        row = slice(0, 1)
        for block in acts.blocks:
            attn = f"h.{block.layer}.attn"
            kernels.linear_forward(
                block.qkv, model._attention_input(acts, block, row), weights[f"{attn}.c_attn.weight"],
                weights.get(f"{attn}.c_attn.bias"),
            )  # fmt: skip
            kernels.attention_decode(
                block.attended, self.keys[block.layer], self.values[block.layer], block.qkv, position
            )
            model._attention_branch(acts, block, row, None)
            model._mlp_branch(acts, block, row, None)
        final = model._norm(acts, acts.blocks[-1].residual_out, "ln_f")
        kernels.linear_forward(self._logits, final, weights.head.T)
        self.position += 1
        logits: Array = self._logits[0]
        return logits
