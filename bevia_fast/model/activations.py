"""The arrays of a forward and backward pass: what each layer keeps, and what the numbers pass through.

Only in attention do rows of a batch meet. All else is row by row, and done a chunk of rows at a time: what is needed
within a chunk only is as large as a chunk, for all layers the same, and still in the cache when it is read.

What a layer keeps for the way back, in units of N x C numbers, is chosen by what it costs to make it again:

    kept                                             units   when
    residual_in, qkv, attended                           5   always, but with recompute
    residual_mid, preactivation                          5   if ctx < 8 dim; (mlp_sum, 1 more, with post-norm)
    residual_in                                          1   with recompute
    normalised rows, activated: 6 units, made again      -   always: element by element, nothing next to the products

The two of the second line cost 10 C of the 72 C + 7 T multiplications (times C, forward and backward) of a token in
a layer: one part in seven where T is small, one in thirteen at T = 8 C, and less and less beyond.
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

LONG = 8  # ctx / dim from which on attention's share is so large that less is kept
ROWS, LONG_ROWS = 2048, 1024  # of a chunk, at most; for each, weights are packed and their gradients cross memory once:
# as long as about 40 rows of baby take (2 threads, see bench/NOTES.md)
LOGITS_BYTES = 16 << 20  # the head makes logits for so many rows at a time that they take at most about this much,
LEAST_LOGITS = 256  # or for so many: for each such block the head's weights and their gradients cross memory once


class Block:
    """What one layer keeps of its forward pass. None: made again, a chunk at a time, when it is needed."""

    residual_in: Array  # (N, C): the stream as it enters
    qkv: Array  # (N, 3C)
    lse: Array  # (B, NH, T)
    attended: Array  # (N, C)
    residual_mid: Array | None  # (N, C): the stream between attention and MLP; with post-norm before normalisation
    preactivation: Array | None  # (N, 4C)
    mlp_sum: Array | None  # (N, C): with post-norm, what the second normalisation receives
    residual_out: Array  # (N, C): the next layer's residual_in

    def __init__(self, layer: int) -> None:
        self.layer = layer


class Activations:
    """All arrays of a forward and backward pass over a batch of B x T tokens.

    `empty` makes the arrays; with one that only has shapes, sizes can be asked for without taking memory.
    """

    def __init__(
        self, config: ModelConfig, B: int, T: int, *, recompute: bool = False, empty: Empty = aligned_empty
    ) -> None:
        N, C, V, NH = B * T, config.dim, config.vocab_size, config.heads

        def rows(width: int, count: int = N) -> Array:
            return empty((count, width), config.dtype)

        self.shape = (B, T)
        self.tapes = Tapes()  # of passes that were made with them
        self.recompute = recompute
        long = config.ctx >= LONG * C
        self.keeps_rows = not recompute and not long
        post = config.norm == "post"

        # what layers keep; with recompute all but residual_in are the same arrays for all of them
        self.blocks: list[Block] = []
        self.embedded = stream = rows(C)
        for layer in range(config.layers):
            block = Block(layer)
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

        # what passes through a chunk of rows
        count = -(-N // (LONG_ROWS if long else ROWS))
        most = min(N, -(-N // count // 16) * 16)  # even chunks, in whole tiles
        self.chunks = chunks(N, most)
        self.head_chunks = chunks(N, min(most, max(LEAST_LOGITS, LOGITS_BYTES // (V * self.embedded.itemsize))))
        self.normed, self.dnormed, self.dbranch = rows(C, most), rows(C, most), rows(C, most)
        self.mean, self.rstd = empty((most,), config.dtype), empty((most,), config.dtype)
        self.activated, self.dwide = rows(4 * C, most), rows(4 * C, most)
        remade = 0 if self.keeps_rows else most
        self.mid, self.preactivation, self.mlp_sum = rows(C, remade), rows(4 * C, remade), rows(C, remade * post)
        self.logits = rows(V, self.head_chunks[0].stop)
        self.losses = empty((N,), config.dtype)

        # gradients of whole batches; each is used again in every layer
        self.dstream, self.dattended, self.dqkv = rows(C), rows(C), rows(3 * C)

        # the batch, where all passes find it
        self.tokens, self.targets = empty((B, T), "int32"), empty((B, T), "int32")


class Room:
    """Memory for the activations of one batch after another, whatever their shapes: taken once, for the largest. So
    an evaluation, whose last batches are smaller, costs the training step after it no memory; but two steps until it
    is played from a tape again."""

    def __init__(self) -> None:
        self._memory = aligned_empty(0, "uint8")

    def activations(self, config: ModelConfig, B: int, T: int, *, recompute: bool) -> Activations:
        """Those of a batch of B x T; the ones that were handed out before must not be used any more."""
        sizes: list[int] = []

        def measure(shape: tuple[int, ...], dtype: str) -> Array:
            array = outline(shape, dtype)
            sizes.append(-(-array.nbytes // CACHE_LINE) * CACHE_LINE)
            return array

        Activations(config, B, T, recompute=recompute, empty=measure)
        if sum(sizes) > self._memory.size:
            self._memory = aligned_empty(0, "uint8")  # let the old memory go before the new comes
            self._memory = aligned_empty(sum(sizes), "uint8")
        starts = itertools.accumulate(sizes, initial=0)

        def take(shape: tuple[int, ...], dtype: str) -> Array:
            start, size = next(starts), outline(shape, dtype).nbytes
            return self._memory[start : start + size].view(dtype).reshape(shape)

        return Activations(config, B, T, recompute=recompute, empty=take)


def part(kept: Array | None, shared: Array, rows: slice) -> Array:
    """Some rows of what a layer keeps, or, if it does not, as many of what all layers share."""
    return shared[: rows.stop - rows.start] if kept is None else kept[rows]


def chunks(count: int, most: int) -> list[slice]:
    """0 .. count - 1, cut into slices of `most` and a last one of what is left."""
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]
