"""From text files to batches of tokens.

Batches are drawn without replacement within an epoch, and are a pure function of (seed, number of the batch): nothing
is remembered from one to the next, so that a run can be resumed, repeated, or looked at anywhere.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .capacity import refuse_too_large
from .errors import DataError
from .kernels.rng import mix64, stream_key
from .tokenizer import Tokenizer

Array = NDArray[Any]

TRAINING_SHARE = 0.9
ROUNDS = 4  # of the Feistel network; Luby & Rackoff 1988 prove four enough with ideal round functions
READING = 16  # bytes of memory for a byte of text: itself, its string, its code points, its tokens
DRAWN_AHEAD = 1024  # places in the order computed at a time


# ---------------------------------------------------------------------------------------------------------------- text


def read_text(paths: Sequence[str]) -> str:
    """The text of files, of folders (every *.txt below, in sorted order) and of standard input ("-").

    Kept as it is, but for a byte order mark; a newline is put between two files if the first does not end in one. No
    path: the default text. Raises DataError naming the file, and the byte offset where it is not UTF-8.
    """
    if not paths:
        return default_text()
    parts = []
    for path in paths:
        texts = [_decode(data, name) for name, data in _sources(path)]
        if not any(texts):
            raise DataError(f"{_named(path)} is empty.")
        parts += texts
    text = ""
    for part in filter(None, parts):
        text += part if text.endswith("\n") or not text else "\n" + part
    return text


def default_text() -> str:
    """The language reference that Python carries for its help(): about 465,000 characters of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DataError("This Python lacks pydoc_data.topics, the default text; give a text with --data.") from None
    return "\n".join(topics[name] for name in sorted(topics))


def _named(path: str) -> str:
    return "Standard input" if path == "-" else path


def _sources(path: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files that `path` stands for."""
    if path == "-":
        yield "Standard input", sys.stdin.buffer.read()
        return
    files = [Path(path)]
    if os.path.isdir(path):
        files = sorted(file for file in Path(path).rglob("*.txt") if file.is_file())
        if not files:
            raise DataError(f"The folder {path} has no *.txt file in it or below.")
    for file in files:
        try:
            refuse_too_large(READING * file.stat().st_size, f"Reading {file}")
            yield str(file), file.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError(f"Cannot read {file}: {reason}.") from None


def _decode(data: bytes, name: str) -> str:
    mark = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    zero = data.find(0)
    if zero >= 0:
        raise DataError(f"{name} is not text: byte {zero} is 0, as in a binary or UTF-16 file.")
    try:
        return data[mark:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = mark + error.start
        raise DataError(f"{name} is not UTF-8: byte {offset} is 0x{data[offset]:02x} ({error.reason}).") from None


# --------------------------------------------------------------------------------------------------------------- splits


class Corpus:
    """A text as tokens, split by position: `training` is the first 90 %, `validation` the rest, both (N,) int32."""

    def __init__(self, text: str, tokenizer: Tokenizer | None = None) -> None:
        """Without a tokenizer, the vocabulary is that of the text. Raises DataError if it lacks a character."""
        self.tokenizer = tokenizer or Tokenizer.from_text(text)
        tokens = self.tokenizer.encode(text)
        cut = int(len(tokens) * TRAINING_SHARE)
        self.training, self.validation = tokens[:cut], tokens[cut:]

    def check_length(self, ctx: int) -> None:
        """Raises DataError unless both splits hold at least one window of ctx tokens and the token after it."""
        for name, tokens in (("training", self.training), ("validation", self.validation)):
            if len(tokens) < ctx + 1:
                total = len(self.training) + len(self.validation)
                raise DataError(
                    f"The text is too short: of its {total:,} characters {len(tokens):,} are in the {name} split, "
                    f"and --ctx {ctx} needs at least {ctx + 1:,} there."
                )


# -------------------------------------------------------------------------------------------------------------- batches


class Batches:
    """The training batches: `batches[i]` is (tokens, targets), both (batch, ctx) int32; targets are one further on.

    An epoch cuts the tokens into windows of ctx that do not overlap, from an offset of its own, and visits each window
    once in an order of its own.
    """

    def __init__(self, tokens: Array, ctx: int, batch: int, seed: int) -> None:
        self.tokens, self.ctx, self.batch, self.seed = tokens, ctx, batch, seed
        # ctx - 1 tokens are left for the offset, so that over the epochs a window can start anywhere
        self.windows = max(1, (len(tokens) - ctx) // ctx)
        self.offsets = len(tokens) - self.windows * ctx  # how many offsets there are
        if self.offsets < 1:
            raise DataError(f"{len(tokens)} tokens are too few for a window of {ctx} and the token after it.")
        self.offsets = min(self.offsets, ctx)
        self._steps = np.arange(ctx)
        self._ahead: tuple[int, Array] = (-1, np.empty(0, np.int64))

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        starts = self.starts(index * self.batch, self.batch)
        places = starts[:, None] + self._steps
        return self.tokens[places], self.tokens[places + 1]

    def starts(self, first: int, count: int) -> Array:
        """Where the windows number first .. first + count - 1, counted through all epochs, begin: (count,) int64."""
        parts = []
        while count:
            block, skip = divmod(first, DRAWN_AHEAD)
            if self._ahead[0] != block:
                self._ahead = (block, self._draw(block * DRAWN_AHEAD))
            parts.append(self._ahead[1][skip : skip + count])
            first, count = first + parts[-1].size, count - parts[-1].size
        return np.concatenate(parts)

    def _draw(self, first: int) -> Array:
        """Starts of the DRAWN_AHEAD windows from `first` on. Only saves time: all are pure functions of (seed, n)."""
        starts, done = np.empty(DRAWN_AHEAD, np.int64), 0
        while done < DRAWN_AHEAD:
            epoch, place = divmod(first + done, self.windows)
            count = min(DRAWN_AHEAD - done, self.windows - place)
            window = permuted(np.arange(place, place + count), self.windows, stream_key(self.seed, "batches", epoch))
            starts[done : done + count] = window * self.ctx + self.offset(epoch)
            done += count
        return starts

    def offset(self, epoch: int) -> int:
        """Where the first window of an epoch begins."""
        return mix64(stream_key(self.seed, "batches", epoch, ROUNDS)) % self.offsets


def permuted(places: Array, size: int, key: int) -> Array:
    """Where a permutation of 0 .. size - 1, chosen by `key`, sends `places` (N,): (N,) int64. Takes no memory for it.

    A Feistel network permutes the numbers of an even count of bits, whatever its round function; one that lands at or
    above `size` is sent on until it is below (cycle walking, Black & Rogaway 2002).
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    half_bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    keys = [np.uint64(mix64(key + number)) for number in range(ROUNDS)]
    result = np.asarray(places).astype(np.uint64)
    walking = np.arange(result.size)
    while walking.size:
        numbers = result[walking]
        left, right = numbers >> half_bits, numbers & mask
        for round_key in keys:
            mixed: Any = mix64(right + round_key)  # type: ignore[arg-type]  # works on arrays of uint64 as on integers
            left, right = right, left ^ (mixed & mask)
        result[walking] = (left << half_bits) | right
        walking = walking[result[walking] >= size]
    return result.astype(np.int64)


def evaluation_batches(tokens: Array, ctx: int, batch: int, count: int = 0) -> Iterator[tuple[Array, Array]]:
    """Batches that cover a split: windows of ctx one after the other, and a last shorter one by itself.

    Yields (tokens, targets), both (B, T) int32 with B <= batch and T <= ctx; every token but the first is a target
    once. With `count`, only that many batches of full windows, spread evenly over the split.
    """
    windows, rest = divmod(len(tokens) - 1, ctx)
    full = windows * ctx
    inputs, targets = tokens[:full].reshape(windows, ctx), tokens[1 : full + 1].reshape(windows, ctx)
    chosen = np.arange(windows)
    if count and count * batch < windows:
        chosen, rest = chosen[np.arange(count * batch) * windows // (count * batch)], 0
    for start in range(0, chosen.size, batch):
        rows = chosen[start : start + batch]
        yield inputs[rows], targets[rows]
    if rest:
        yield tokens[None, full:-1].copy(), tokens[None, full + 1 :].copy()
