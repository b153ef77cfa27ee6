"""From an encoded text to batches of tokens.

Batches are drawn without replacement within an epoch. Each is a pure function of (seed, number of the batch): there is
no state between batches, so a run can be resumed or repeated from any step.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StoppedRun, counted
from ..kernels.rng import mix64, stream_key
from ..naming import option
from .tokenfile import TRAINING_SHARE, CodedText, cache_folder
from .tokenizer import Tokenizer
from .vocabulary import Vocabulary

Array = NDArray[Any]

# Rounds of the Feistel network, by the version of the order of batches; a run keeps the version that it started with.
# Four, which Luby & Rackoff 1988 prove enough for many windows, favor some orders: of 5 windows, the commonest is drawn
# nine times as often as the rarest. Eight still favor some orders of 5 windows by a few percent, twelve favor none.
ROUNDS = {1: 4, 2: 12}
ORDER = 2  # of new runs
DRAWN_AHEAD = 1024  # windows whose positions are computed at a time
EVALUATED = 1 << 18  # tokens of the validation split that an evaluation covers by default
SCANNED = 1 << 20  # characters compared at a time
ROWS_KEPT = 64  # rows read from a mapped file before its pages are released; each may have loaded a megabyte

# --------------------------------------------------------------------------------------------------------------- splits


class Corpus:
    """A text as tokens, split by position: `training` is the first 90 %, `validation` the rest."""

    def __init__(self, text: CodedText, tokenizer: Vocabulary | None = None) -> None:
        """Use the vocabulary in which the text is encoded, or for characters the given alphabet, or that of the text.

        Raises DataError if the text has a character outside of the alphabet.
        """
        self.tokenizer: Vocabulary
        if text.vocabulary is not None:
            self.tokenizer, ids = text.vocabulary, np.arange(len(text.vocabulary), dtype=np.int32)
        else:
            alphabet = tokenizer or Tokenizer("".join(sorted(text.characters)))
            assert isinstance(alphabet, Tokenizer)  # the text would be encoded otherwise
            self.tokenizer, ids = alphabet, alphabet.find(text.characters)
            if (ids < 0).any():
                raise alphabet.unseen(_unseen(text, ids), "The text")
        cut = int(len(text.codes) * TRAINING_SHARE)
        self.training = Tokens(text.codes[:cut], ids, text.mapping)
        self.validation = Tokens(text.codes[cut:], ids, text.mapping)

    def check_length(self, ctx: int) -> None:
        """Raise DataError unless both splits hold at least one window of ctx tokens and the token after it."""
        for name, tokens in (("training", self.training), ("validation", self.validation)):
            if len(tokens) < ctx + 1:
                total = len(self.training) + len(self.validation)
                raise DataError(
                    f"The text is too short: its {name} split has {len(tokens):,} of {total:,} {self.tokenizer.unit}s, "
                    f"and {option('ctx', ctx)} needs at least {ctx + 1:,}."
                )


class Tokens:
    """The tokens of a part of a text, which may be larger than memory.

    `tokens[places]` returns the token ids (int32) at an array of positions or a slice, and reads nothing else. Raises
    StoppedRun if the file that holds them is damaged or was cut. (If it is cut at the very moment of a read, the system
    ends the process with SIGBUS.)
    """

    def __init__(self, codes: Array, ids: Array, mapping: mmap.mmap | None = None) -> None:
        """The token ids are ids[codes]. `mapping` is the mapped file that holds `codes` (N,), if there is one."""
        self._codes, self._ids, self._mapping = codes, ids, mapping
        self._rows = 0

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, places: Array | slice) -> Array:
        if self._mapping is not None and self._mapping.size() < len(self._mapping):
            raise StoppedRun("The file that holds the cached tokens of the text was cut meanwhile; resume the run.")
        try:
            found: Array = self._ids[self._codes[places]]
        except IndexError:  # an invalid code, in a part of the file that is not checked
            raise StoppedRun(
                f"The cached tokens of the text are damaged; remove {cache_folder()} and resume the run."
            ) from None
        if self._mapping is not None:
            self._rows += len(found)
            if self._rows >= ROWS_KEPT:
                self._release(self._mapping)
        return found

    def _release(self, mapping: mmap.mmap) -> None:
        """Release the file's pages, so that they do not add up to the whole file in this process's memory.

        They stay in the page cache as long as the system does not need the space.
        """
        self._rows = 0
        if hasattr(mapping, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def _unseen(text: CodedText, ids: Array) -> Iterator[tuple[str, int]]:
    """Yield the characters of a text that have no id, with their positions."""
    for start in range(0, len(text.codes), SCANNED):
        codes = text.codes[start : start + SCANNED]
        for place in np.flatnonzero(ids[codes] < 0).tolist():
            yield text.characters[codes[place]], start + place


# -------------------------------------------------------------------------------------------------------------- batches


class Batches:
    """The training batches: `batches[i]` is (tokens, targets), both (batch, ctx) int32; a target is the next token.

    Each epoch cuts the tokens into windows of ctx that do not overlap, starting at its own offset, and visits each
    window once, in its own order. `order` is the version of that order, a key of ROUNDS.
    """

    def __init__(self, tokens: Tokens | Array, ctx: int, batch: int, seed: int, order: int = ORDER) -> None:
        self.tokens, self.ctx, self.batch, self.seed, self.order = tokens, ctx, batch, seed, order
        # ctx - 1 tokens are left over for the offset, so that in some epoch a window can start at any token
        self.windows = max(1, (len(tokens) - ctx) // ctx)
        self.offsets = len(tokens) - self.windows * ctx  # possible offsets: 0 .. offsets - 1
        if self.offsets < 1:
            raise DataError(f"{counted(len(tokens), 'token')} cannot fill a window of {ctx} and the token after it.")
        self.offsets = min(self.offsets, ctx)
        self._steps = np.arange(ctx)
        self._ahead: tuple[int, Array] = (-1, np.empty(0, np.int64))

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        starts = self.starts(index * self.batch, self.batch)
        places = starts[:, None] + self._steps
        return self.tokens[places], self.tokens[places + 1]

    def starts(self, first: int, count: int) -> Array:
        """Return where windows first .. first + count - 1 start, numbered across epochs: (count,) int64."""
        parts = []
        while count:
            block, skip = divmod(first, DRAWN_AHEAD)
            if self._ahead[0] != block:
                self._ahead = (block, self._draw(block * DRAWN_AHEAD))
            parts.append(self._ahead[1][skip : skip + count])
            first, count = first + parts[-1].size, count - parts[-1].size
        return np.concatenate(parts)

    def _draw(self, first: int) -> Array:
        """Return where the DRAWN_AHEAD windows from `first` on start. Drawing many at once only saves time."""
        starts, done = np.empty(DRAWN_AHEAD, np.int64), 0
        while done < DRAWN_AHEAD:
            epoch, place = divmod(first + done, self.windows)
            count = min(DRAWN_AHEAD - done, self.windows - place)
            key = stream_key(self.seed, "batches", epoch)
            window = permuted(np.arange(place, place + count), self.windows, key, self.order)
            starts[done : done + count] = window * self.ctx + self.offset(epoch)
            done += count
        return starts

    def offset(self, epoch: int) -> int:
        """Return where the first window of an epoch starts."""
        return mix64(stream_key(self.seed, "batches", epoch, ROUNDS[self.order])) % self.offsets


def permuted(places: Array, size: int, key: int, order: int = ORDER) -> Array:
    """Return the images of `places` (N,) under a permutation of 0 .. size - 1 that `key` selects: (N,) int64.

    The permutation is not stored. A Feistel network permutes the numbers with an even count of bits, whatever its round
    function. It is applied again to results that are not below `size`, until they are (cycle walking, Black & Rogaway
    2002). With four bits or more, the network is an even permutation; so, except in the first version of the order, one
    bit of the key decides whether 0 and 1 are exchanged, and odd permutations are as likely as even ones.
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    half_bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    keys = [np.uint64(mix64(key + number)) for number in range(ROUNDS[order])]
    result = np.asarray(places).astype(np.uint64)
    walking = np.arange(result.size)
    while walking.size:
        numbers = result[walking]
        left, right = numbers >> half_bits, numbers & mask
        for round_key in keys:
            mixed: Any = mix64(right + round_key)  # type: ignore[arg-type]  # it also takes arrays of uint64
            left, right = right, left ^ (mixed & mask)
        result[walking] = (left << half_bits) | right
        walking = walking[result[walking] >= size]
    if order > 1 and size > 1:
        result[result < 2] ^= np.uint64(mix64(key + len(keys)) & 1)
    return result.astype(np.int64)


def evaluation_batches(
    tokens: Tokens | Array, ctx: int, batch: int, count: int = 0
) -> Iterator[tuple[Array, Array]]:
    """Yield batches that cover a split: consecutive windows of ctx, and the shorter rest as a batch of its own.

    A batch is (tokens, targets), both (B, T) int32 with B <= batch and T <= ctx. Every token except the first is a
    target once. With `count`, yields only that many batches of full windows, spread evenly over the split.
    """
    windows, rest = divmod(len(tokens) - 1, ctx)
    chosen = windows
    if count and count * batch < windows:
        chosen, rest = count * batch, 0
    steps = np.arange(ctx)
    for start in range(0, chosen, batch):
        numbers = np.arange(start, min(start + batch, chosen)) * windows // max(chosen, 1)
        places = numbers[:, None] * ctx + steps
        yield tokens[places], tokens[places + 1]
    if rest:
        places = np.arange(windows * ctx, windows * ctx + rest)[None]
        yield tokens[places], tokens[places + 1]


def usual_evaluation(tokens: Sized, ctx: int, batch: int) -> int:
    """Return how many batches an evaluation covers by default: about EVALUATED tokens, or 0 for the whole split."""
    count = max(1, EVALUATED // (ctx * batch))
    return count if len(tokens) > max(EVALUATED, count * ctx * batch) else 0
