"""The texts that a page shows: those that are asked for, or else pieces of the text that the run did not train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import GenerateConfig, TrainConfig
from ..data.corpus import Corpus
from ..data.sources import sources, text_source
from ..data.texts import encoded_text
from ..errors import DataError, UserError
from ..model.writing import stream
from ..reporter import Reporter
from ..runs.checkpoint import text_fingerprint
from ..runs.trained import Run

Array = NDArray[Any]

PIECES = 3  # of the validation text
LENGTH = 48  # tokens of a piece
SEARCHED = 1 << 14  # tokens in the middle of each part of the text in which a piece is sought


@dataclass(frozen=True)
class Prompt:
    """A text to look at: its tokens (T,) int32, and where it comes from, for the page to name."""

    tokens: Array
    origin: str


def asked_for(run: Run, texts: Sequence[str], origin: str = "your prompt") -> list[Prompt]:
    """Return the prompts of a user, or texts of another `origin`.

    Raises DataError for one that is empty, longer than the context, or has characters that the model does not know.
    """
    found, ctx = [], run.model.config.ctx
    for number, text in enumerate(texts, 1):
        name = "The prompt" if len(texts) == 1 else f"Prompt {number}"
        if not text:
            raise DataError(f"{name} is empty; it needs at least one character.")
        tokens = run.tokenizer.encode(text, name)
        if tokens.size > ctx:
            raise DataError(f"{name} has {tokens.size:,} {run.tokenizer.unit}s; the model's context is {ctx:,}.")
        found.append(Prompt(tokens, origin))
    return found


def usual(run: Run) -> tuple[list[Prompt], str]:
    """Return three pieces of the run's validation text, at fixed places of it.

    If that text cannot be read, the model writes three texts instead; the second result then says why.
    """
    try:
        return _pieces(run), ""
    except UserError as error:
        why = str(error).rstrip(".")
        note = f"The prompts are the model's own writing, because the text of the run is not at hand: {why}."
        return _written(run), note


def _pieces(run: Run) -> list[Prompt]:
    """Return pieces of the validation split. Raises UserError if the text of the run cannot be read again."""
    config = run.config
    _refuse_streams(config)
    text = encoded_text(config, Reporter(), run.tokenizer)
    if text.fingerprint != text_fingerprint(run.folder):
        raise DataError("it has changed since")
    validation = Corpus(text, run.tokenizer).validation
    found: list[Prompt] = []
    taken: set[bytes] = set()
    for index in range(PIECES):
        begin, end = (len(validation) * number // PIECES for number in (index, index + 1))
        first = begin + max(0, (end - begin - SEARCHED) // 2)
        part = validation[slice(first, min(first + SEARCHED, end))]
        if not part.size:  # the text has fewer tokens than there are pieces
            continue
        length = min(LENGTH, run.model.config.ctx, len(part))
        start = _most_letters(part, [run.tokenizer.label(token) for token in part.tolist()], length, taken)
        piece = part[start : start + length]
        taken.add(piece.tobytes())
        start += first + 1
        origin = f"validation text, {run.tokenizer.unit}s {start:,} to {start + length - 1:,}"
        found.append(Prompt(piece, origin))
    return found


def _refuse_streams(config: TrainConfig) -> None:
    """Raise DataError if the text was a stream, which cannot be read twice."""
    if "-" in config.data or sources(text_source(config)) is None:
        raise DataError("it came from a stream")


def _most_letters(tokens: Array, texts: list[str], length: int, taken: set[bytes]) -> int:
    """Return where the piece with the most letters begins, of those that begin with a word and are not `taken`.

    A piece with many letters is not a table; and a text may repeat itself. A word begins after a space, which may be
    the first character of its token.
    """
    letters = np.cumsum([0, *(sum(char.isalpha() for char in text) for text in texts)])
    inside = letters[length:] - letters[:-length]
    ends = [text[-1:].isspace() for text in texts]
    starts = [
        place for place in range(1, len(inside))
        if (texts[place][:1].isalpha() and ends[place - 1]) or (texts[place][:1] == " " and texts[place][1:2].isalpha())
    ]  # fmt: skip
    fresh = [place for place in starts if tokens[place : place + length].tobytes() not in taken]
    return max(fresh or starts or [0], key=lambda start: int(inside[start]))


def _written(run: Run) -> list[Prompt]:
    """Return texts that the model writes."""
    length = min(LENGTH, run.model.config.ctx)
    found = []
    for seed in range(1, PIECES + 1):
        text = "".join(stream(run.model, run.tokenizer, GenerateConfig(run="", length=length, seed=seed)))
        tokens = run.tokenizer.encode(text)[: run.model.config.ctx]  # byte pairs may be joined in another way
        found.append(Prompt(tokens, f"written by the model, with the seed {seed}"))
    return found
