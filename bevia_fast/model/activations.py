"""The arrays of a forward and backward pass: what each layer keeps, and what the data passes through.

Only attention looks across the rows of a batch. Everything else works row by row, one chunk of rows at a time: arrays
that are needed only within a chunk are as large as a chunk, shared by all layers, and still in the cache when they are
read.

What a layer keeps for the backward pass, in units of N x C numbers, depends on what it costs to recompute:

    kept                                               units   when
    residual_in, qkv, attended                             5   always, except with recompute
    residual_mid, preactivation                            5   if ctx < 8 dim (and mlp_sum, 1 more, with post-norm)
    residual_in                                            1   with recompute
    normalized rows, activated: 6 units, recomputed        -   always: elementwise work is cheap beside the products

Recomputing the second line costs 10 C of the 72 C + 7 T multiplications (times C, forward and backward) of a token in a
layer: one part in seven if T is small, one in thirteen at T = 8 C, and less beyond.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from ..config import ModelConfig
from ..kernels.memory import CACHE_LINE, aligned_empty, outline
from ..kernels.tape import Tapes

Array = NDArray[Any]
Empty = Callable[[tuple[int, ...], str], Array]

LONG = 8  # ctx / dim from which attention dominates, so that less is kept
# The most rows of a chunk. For each chunk, weights are packed and their gradients cross memory once, which takes as
# long as about 40 rows of baby (2 threads, see bench/NOTES.md).
ROWS, LONG_ROWS = 2048, 1024
# The head computes logits for as many rows at a time as fit into LOGITS_BYTES, but for at least LEAST_LOGITS rows: for
# each block, the head's weights and their gradients cross memory once.
LOGITS_BYTES, LEAST_LOGITS = 16 << 20, 256


class LayerActivations:
    """What one layer keeps of its forward pass. None: recomputed when it is needed, one chunk at a time."""

    residual_in: Array  # (N, C): the stream as it enters
    qkv: Array  # (N, 3C)
    lse: Array  # (B, NH, T)
    attended: Array  # (N, C)
    residual_mid: Array | None  # (N, C): the stream between attention and MLP; with post-norm before its norm
    preactivation: Array | None  # (N, 4C)
    mlp_sum: Array | None  # (N, C): with post-norm, the input of the second norm
    residual_out: Array  # (N, C): the next layer's residual_in

    def __init__(self, layer: int) -> None:
        self.layer = layer


class Rows:
    """A chunk of rows of a layer: views of all arrays that its formulas name, each cut to these n rows."""

    def __init__(self, acts: Activations, kept: LayerActivations, chunk: slice) -> None:
        n = chunk.stop - chunk.start
        self.start = chunk.start  # where the rows begin in the batch
        # of the layer
        self.residual_in, self.residual_out = kept.residual_in[chunk], kept.residual_out[chunk]  # (n, C)
        self.qkv, self.attended = kept.qkv[chunk], kept.attended[chunk]  # (n, 3C), (n, C)
        # of the layer if it keeps them, else shared by all layers
        self.mid = acts.mid[:n] if kept.residual_mid is None else kept.residual_mid[chunk]  # (n, C)
        self.mlp_sum = acts.mlp_sum[:n] if kept.mlp_sum is None else kept.mlp_sum[chunk]  # (n, C)
        self.preactivation = acts.preactivation[:n] if kept.preactivation is None else kept.preactivation[chunk]
        # shared by all layers and chunks
        self.normed, self.mean, self.rstd = acts.normed[:n], acts.mean[:n], acts.rstd[:n]  # (n, C), (n,), (n,)
        self.activated = acts.activated[:n]  # (n, 4C)
        # gradients of the batch, and of what passes through a chunk
        self.dstream, self.dattended, self.dqkv = acts.dstream[chunk], acts.dattended[chunk], acts.dqkv[chunk]
        self.dnormed, self.dbranch, self.dwide = acts.dnormed[:n], acts.dbranch[:n], acts.dwide[:n]


class Activations:
    """All arrays of a forward and backward pass over a batch of B x T tokens.

    `empty` makes the arrays; `kernels.memory.outline` makes some that have shapes but take no memory.
    """

    def __init__(
        self, config: ModelConfig, B: int, T: int, *, recompute: bool = False, empty: Empty = aligned_empty
    ) -> None:
        N, C, V, NH = B * T, config.dim, config.vocab_size, config.heads

        def rows(width: int, count: int = N) -> Array:
            return empty((count, width), config.dtype)

        self.shape = (B, T)
        self.tapes = Tapes()  # of passes over these arrays
        self.recompute = recompute
        long = config.ctx >= LONG * C
        self.keeps_rows = not recompute and not long
        post = config.norm == "post"

        # what layers keep; with recompute, all layers share everything but residual_in
        self.blocks: list[LayerActivations] = []
        self.embedded = stream = rows(C)
        for layer in range(config.layers):
            block = LayerActivations(layer)
            if recompute and self.blocks:
                first = self.blocks[0]
                block.qkv, block.lse, block.attended = first.qkv, first.lse, first.attended
            else:
                block.qkv, block.lse, block.attended = rows(3 * C), empty((B, NH, T), config.dtype), rows(C)
            block.residual_mid = rows(C) if self.keeps_rows else None
            block.preactivation = rows(4 * C) if self.keeps_rows else None
            block.mlp_sum = rows(C) if self.keeps_rows and post else None
            block.residual_in, stream = stream, rows(C)
            block.residual_out = stream
            self.blocks.append(block)

        # what data passes through within a chunk of rows
        count = -(-N // (LONG_ROWS if long else ROWS))
        most = min(N, -(-N // count // 16) * 16)  # even chunks of whole tiles
        self.chunks = chunks(N, most)
        self.head_chunks = chunks(N, min(most, max(LEAST_LOGITS, LOGITS_BYTES // (V * self.embedded.itemsize))))
        self.normed, self.dnormed, self.dbranch = rows(C, most), rows(C, most), rows(C, most)
        self.mean, self.rstd = empty((most,), config.dtype), empty((most,), config.dtype)
        self.activated, self.dwide = rows(4 * C, most), rows(4 * C, most)
        remade = 0 if self.keeps_rows else most
        self.mid, self.preactivation, self.mlp_sum = rows(C, remade), rows(4 * C, remade), rows(C, remade * post)
        self.logits = rows(V, self.head_chunks[0].stop)
        self.losses = empty((N,), config.dtype)

        # gradients of the whole batch, which every layer reuses
        self.dstream, self.dattended, self.dqkv = rows(C), rows(C), rows(3 * C)

        # the batch, in the same place for all passes
        self.tokens, self.targets = empty((B, T), "int32"), empty((B, T), "int32")
        self._rows: dict[tuple[int, int, int], Rows] = {}

    def rows(self, kept: LayerActivations, chunk: slice) -> Rows:
        """Return the views of a chunk of a layer; they are made once."""
        key = kept.layer, chunk.start, chunk.stop
        if key not in self._rows:
            self._rows[key] = Rows(self, kept, chunk)
        return self._rows[key]


class Room:
    """Memory for the activations of one batch after another, allocated once for the largest.

    An evaluation, whose last batches are smaller, thus costs no memory. The next two training steps record a new tape.
    """

    def __init__(self) -> None:
        self._memory = aligned_empty(0, "uint8")

    def activations(self, config: ModelConfig, B: int, T: int, *, recompute: bool) -> Activations:
        """Return the activations of a batch of B x T; those returned before must no longer be used."""
        sizes: list[int] = []

        def measure(shape: tuple[int, ...], dtype: str) -> Array:
            array = outline(shape, dtype)
            sizes.append(-(-array.nbytes // CACHE_LINE) * CACHE_LINE)
            return array

        Activations(config, B, T, recompute=recompute, empty=measure)
        if sum(sizes) > self._memory.size:
            self._memory = aligned_empty(0, "uint8")  # free the old memory before allocating the new
            self._memory = aligned_empty(sum(sizes), "uint8")
        starts = itertools.accumulate(sizes, initial=0)

        def take(shape: tuple[int, ...], dtype: str) -> Array:
            start, size = next(starts), outline(shape, dtype).nbytes
            return self._memory[start : start + size].view(dtype).reshape(shape)

        return Activations(config, B, T, recompute=recompute, empty=take)


def chunks(count: int, most: int) -> list[slice]:
    """Return slices of `most` that cover range(count); the last one may be shorter."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]
