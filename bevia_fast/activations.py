"""The arrays of a forward and backward pass: what each layer keeps, and what the gradients pass through."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .config import ModelConfig
from .kernels.memory import aligned_empty

Array = NDArray[Any]

LOGITS_BYTES = 16 << 20  # the logits are made a block of rows at a time; one block is at most about this large


class Block:
    """What one layer keeps of its forward pass, and its weights by short names."""

    def __init__(self, config: ModelConfig, B: int, T: int, residual_in: Array) -> None:
        N, C, NH = B * T, config.dim, config.heads

        def rows(width: int) -> Array:
            return aligned_empty((N, width), config.dtype)

        self.residual_in = residual_in  # the stream as it enters
        self.normed_1, self.mean_1, self.rstd_1 = rows(C), *aligned_empty((2, N), config.dtype)
        self.qkv = rows(3 * C)
        self.lse = aligned_empty((B, NH, T), config.dtype)
        self.attended = rows(C)
        self.residual_mid = rows(C)  # the stream between attention and MLP
        self.normed_2, self.mean_2, self.rstd_2 = rows(C), *aligned_empty((2, N), config.dtype)
        self.preactivation, self.activated = rows(4 * C), rows(4 * C)
        self.residual_out = rows(C)


class Activations:
    """All arrays of a forward and backward pass over a batch of B x T tokens, allocated once."""

    def __init__(self, config: ModelConfig, B: int, T: int) -> None:
        N, C, V = B * T, config.dim, config.vocab_size

        def rows(width: int, count: int = N) -> Array:
            return aligned_empty((count, width), config.dtype)

        self.shape = (B, T)
        self.embedded = rows(C)
        self.blocks: list[Block] = []
        for _ in range(config.layers):
            stream = self.blocks[-1].residual_out if self.blocks else self.embedded
            self.blocks.append(Block(config, B, T, stream))
        self.final, self.mean_f, self.rstd_f = rows(C), *aligned_empty((2, N), config.dtype)
        self.head_rows = max(1, min(N, LOGITS_BYTES // (V * self.final.itemsize)))
        self.logits = rows(V, self.head_rows)
        self.losses = aligned_empty(N, config.dtype)
        # gradients with respect to activations; each is used again in every layer
        self.dstream, self.dbranch, self.dnarrow = rows(C), rows(C), rows(C)
        self.dwide, self.dqkv = rows(4 * C), rows(3 * C)
