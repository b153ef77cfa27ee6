"""The characters behind the tokens of another program's model, and the order in which this one keeps them.

A `Tokenizer` sorts its alphabet by code point; another program may number characters in any order. So the rows of the
embedding and of the output head move with their characters. Those of a byte-pair encoding stay where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.bpe import BPETokenizer
from ..data.bytelevel import ByteTokenizer
from ..data.tokenizer import Tokenizer
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError, DataError, shown
from ..files import reading, refuse_special
from .foreign import read_json
from .pickles import load_pickle

Array = NDArray[Any]

LARGEST = 64 << 20  # bytes of a file that an alphabet is read from


def read_alphabet(path: Path) -> list[str] | str:
    """Return the characters of tokens 0, 1, ... from a file, or the content of the tokenizer.json of a BPE.

    The characters come from nanoGPT's meta.pkl, a tokenizer.json with a word for each character, or a text, whose
    distinct characters are sorted. Raises CheckpointError if the file cannot be read, or if its tokens are of no kind
    that this program has.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        found = read_json(path)
        model = found.get("model")
        if isinstance(model, dict) and model.get("type") == "BPE":
            return _read(path).decode("utf-8")
        return _of_tokenizer(path, found)
    if kind == ".pkl":
        content = _read(path)
        found = load_pickle(path, content)
        names = found.get("itos") if isinstance(found, dict) else None
        if not isinstance(names, dict):
            raise CheckpointError(f"{path} has no characters: nanoGPT's meta.pkl has them under itos.")
        return _in_order(path, {name: number for number, name in names.items()})
    try:
        return sorted(set(_read(path).decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: byte {error.start}.") from None


def _read(path: Path) -> bytes:
    with reading(path):
        refuse_special(path)
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path} is larger than the file of an alphabet may be.")
        return path.read_bytes()


def _of_tokenizer(path: Path, found: dict[str, Any]) -> list[str]:
    model = found.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise CheckpointError(f"{path} has no vocabulary of words.")
    if model.get("type") != "WordLevel":
        raise CheckpointError(
            f"{path} has tokens of type {shown(model.get('type'), 40)}; this program reads models whose tokens are "
            "single characters (WordLevel) or byte pairs (BPE)."
        )
    return _in_order(path, model["vocab"])


def _in_order(path: Path, numbers: dict[Any, Any]) -> list[str]:
    """Return the characters in the order of their numbers. Raises CheckpointError unless they are 0, 1, ..."""
    for name in numbers:
        if not isinstance(name, str) or len(name) != 1:
            raise CheckpointError(
                f"{path} has the token {shown(repr(name), 40)}; this program reads models whose tokens are single "
                "characters."
            )
    places = list(numbers.values())
    if not all(type(place) is int for place in places) or sorted(places) != list(range(len(places))):
        raise CheckpointError(f"{path} does not number its {len(places):,} characters from 0.")
    return sorted(numbers, key=lambda name: numbers[name])


def vocabulary_of(path: Path, found: list[str] | str, size: int) -> tuple[Vocabulary, Array]:
    """Return the vocabulary of a model with `size` tokens, and which of its tokens each of ours is: (V,) int64.

    `found` is what `read_alphabet` returns. Raises CheckpointError, which names `path`, if they do not fit.
    """
    if isinstance(found, str):
        try:
            vocabulary = BPETokenizer(found, size)
            same = vocabulary.about["model"].get("merges") == [] and vocabulary.single() == list(range(size))
            return ByteTokenizer() if same else vocabulary, np.arange(size)
        except DataError as error:
            raise CheckpointError(f"The vocabulary of {path} cannot be used: {error}") from None
    if len(found) != size:
        raise CheckpointError(f"{path} has {size:,} tokens, but its vocabulary has {len(found):,} characters.")
    return sorted_alphabet(found)


def sorted_alphabet(characters: list[str]) -> tuple[Tokenizer, Array]:
    """Return the tokenizer of the characters, and which of their tokens each of its own is: (V,) int64.

    Raises CheckpointError for a character that is there twice.
    """
    order = sorted(range(len(characters)), key=lambda place: characters[place])
    try:
        return Tokenizer("".join(characters[place] for place in order)), np.array(order)
    except DataError as error:
        raise CheckpointError(f"The characters of the tokens are no alphabet: {error}") from None
