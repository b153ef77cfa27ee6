"""The arrays of a forward and backward pass: what each layer keeps, and what is computed one chunk of rows at a time.

Only attention looks across the rows of a batch. Everything else works row by row, one chunk of rows at a time: arrays
that are needed only within a chunk are as large as a chunk, shared by all layers, and still in the cache when they are
read.

What a layer keeps for the backward pass, in units of N x C numbers, depends on what it costs to recompute:

    kept                                              units   when
    residual_in, qkv, attended                            5   always, except with recompute
    residual_mid, preactivation                           5   if ctx < 8 dim (and mlp_sum, 1 more, with post-norm)
    residual_in                                           1   with recompute
    normalized rows, activated: 6 units, recomputed       -   always: elementwise work costs little beside the products

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

LONG = 8  # ctx / dim from which attention takes so much of the time that less is kept
# The most rows of a chunk. For each chunk, weights are packed and their gradients cross memory once, which takes as
# long as about 40 rows of baby (2 threads, see bench/NOTES.md).
ROWS, LONG_ROWS = 2048, 1024
# The head computes the logits of as many rows at a time as fit into LOGITS_BYTES, but of at least LEAST_LOGITS: each
# time, the head's weights and their gradients cross memory once.
LOGITS_BYTES, LEAST_LOGITS = 16 << 20, 256


class LayerActivations:
    """What one layer keeps of its forward pass. None: recomputed when it is needed, one chunk at a time."""

    residual_in: Array  # (N, C): the stream as it enters
    qkv: Array  # (N, 3C)
    lse: Array  # (B, NH, T)
    attended: Array  # (N, C)
    residual_mid: Array | None  # (N, C): the stream between attention and MLP; with post-norm, before its norm
    preactivation: Array | None  # (N, 4C)
    mlp_sum: Array | None  # (N, C): with post-norm, the input of the second norm
    residual_out: Array  # (N, C): the next layer's residual_in

    def __init__(self, layer: int) -> None:
        self.layer = layer


class Rows:
    """A chunk of rows of a layer: all arrays that the layer's formulas name, as views of these n rows.

    An array that the layer does not keep is shared by all layers, and holds the chunk that was computed last.
    """

    def __init__(self, acts: Activations, kept: LayerActivations, chunk: slice) -> None:
        n = chunk.stop - chunk.start
        self.start = chunk.start  # the number of the first row in the batch

        # forward
        self.residual_in = kept.residual_in[chunk]  # (n, C)
        self.normed, self.mean, self.rstd = acts.normed[:n], acts.mean[:n], acts.rstd[:n]  # (n, C), (n,), (n,)
        self.qkv = kept.qkv[chunk]  # (n, 3C)
        self.attended = kept.attended[chunk]  # (n, C)
        self.mid = acts.mid[:n] if kept.residual_mid is None else kept.residual_mid[chunk]  # (n, C)
        self.preactivation = acts.preactivation[:n] if kept.preactivation is None else kept.preactivation[chunk]
        self.activated = acts.activated[:n]  # (n, 4C), as preactivation
        self.mlp_sum = acts.mlp_sum[:n] if kept.mlp_sum is None else kept.mlp_sum[chunk]  # (n, C) with post-norm
        self.residual_out = kept.residual_out[chunk]  # (n, C)

        # backward
        self.dstream = acts.dstream[chunk]  # (n, C): the gradient of residual_out, mid and residual_in, one by one
        self.dbranch = acts.dbranch[:n]  # (n, C): of a branch, before dropout
        self.dpreactivation = acts.dwide[:n]  # (n, 4C)
        self.dattended = acts.dattended[chunk]  # (n, C)
        self.dqkv = acts.dqkv[chunk]  # (n, 3C)
        self.dnormed = acts.dnormed[:n]  # (n, C)


class HeadRows:
    """A chunk of rows of the head: all arrays that its formulas name, as views of these n rows."""

    def __init__(self, acts: Activations, targets: Array, chunk: slice) -> None:
        n = chunk.stop - chunk.start
        self.residual_out = acts.blocks[-1].residual_out[chunk]  # (n, C)
        self.normed, self.mean, self.rstd = acts.normed[:n], acts.mean[:n], acts.rstd[:n]  # (n, C), (n,), (n,)
        self.logits = acts.logits[:n]  # (n, V)
        self.targets, self.losses = targets[chunk], acts.losses[chunk]  # (n,)
        self.dnormed, self.dstream = acts.dnormed[:n], acts.dstream[chunk]  # (n, C)


class Activations:
    """All arrays of a forward and backward pass over a batch of B x T tokens.

    `empty` makes the arrays; with `kernels.memory.outline` they have shapes but take no memory.
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

        # what layers keep; with recompute, all layers share everything but residual_in and residual_out
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

        # what is computed one chunk of rows at a time
        count = -(-N // (LONG_ROWS if long else ROWS))
        most = min(N, -(-N // count // 16) * 16)  # chunks of equal size, in whole tiles
        self.chunks = chunks(N, most)
        self.head_chunks = chunks(N, min(most, max(LEAST_LOGITS, LOGITS_BYTES // (V * self.embedded.itemsize))))
        self.normed, self.dnormed, self.dbranch = rows(C, most), rows(C, most), rows(C, most)
        self.mean, self.rstd = empty((most,), config.dtype), empty((most,), config.dtype)
        self.activated, self.dwide = rows(4 * C, most), rows(4 * C, most)
        recomputed = 0 if self.keeps_rows else most
        self.mid, self.preactivation = rows(C, recomputed), rows(4 * C, recomputed)
        self.mlp_sum = rows(C, recomputed * post)
        self.logits = rows(V, self.head_chunks[0].stop)
        self.losses = empty((N,), config.dtype)

        # gradients of whole batches, shared by all layers
        self.dstream, self.dattended, self.dqkv = rows(C), rows(C), rows(3 * C)

        # the batch, at the same address in every pass
        self.tokens, self.targets = empty((B, T), "int32"), empty((B, T), "int32")

    def rows(self, kept: LayerActivations) -> list[Rows]:
        """Return the chunks of rows of a layer."""
        return [Rows(self, kept, chunk) for chunk in self.chunks]

    def head_rows(self, targets: Array) -> list[HeadRows]:
        """Return the chunks of rows of the head, for `targets` (N,)."""
        return [HeadRows(self, targets, chunk) for chunk in self.head_chunks]

    def sequences(self, array: Array) -> Array:
        """Return rows (N, width) as sequences (B, T, width), for the kernels that look across rows."""
        return array.reshape(*self.shape, -1)


class Room:
    """Memory for the activations of one batch after another, whatever their shapes, allocated once for the largest.

    So an evaluation, whose last batches are smaller, costs the training step after it no memory; but two steps pass
    until a tape replays the step again.
    """

    def __init__(self) -> None:
        self._memory = aligned_empty(0, "uint8")

    def activations(self, config: ModelConfig, B: int, T: int, *, recompute: bool) -> Activations:
        """Return the activations of a batch of B x T. Those returned before must not be used any more."""
        sizes: list[int] = []

        def measure(shape: tuple[int, ...], dtype: str) -> Array:
            array = outline(shape, dtype)
            sizes.append(-(-array.nbytes // CACHE_LINE) * CACHE_LINE)
            return array

        Activations(config, B, T, recompute=recompute, empty=measure)
        if sum(sizes) > self._memory.size:
            self._memory = aligned_empty(0, "uint8")  # frees the old memory before more is allocated
            self._memory = aligned_empty(sum(sizes), "uint8")
        starts = itertools.accumulate(sizes, initial=0)

        def take(shape: tuple[int, ...], dtype: str) -> Array:
            start, size = next(starts), outline(shape, dtype).nbytes
            return self._memory[start : start + size].view(dtype).reshape(shape)

        return Activations(config, B, T, recompute=recompute, empty=take)


def chunks(count: int, most: int) -> list[slice]:
    """Return slices of `most` elements that cover 0 .. count - 1; the last one may be shorter."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]
