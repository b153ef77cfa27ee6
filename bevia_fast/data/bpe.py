"""Byte-level byte-pair encoding (BPE): tokens are bytes, and pairs of tokens that a text has often.

A vocabulary is the content of a tokenizer.json as the package `tokenizers` reads and writes it, and is kept as it is.
Encoding needs that package, an extra; what a token stands for is read from the file, so that decoding does not.
Sennrich et al. 2016 (https://arxiv.org/abs/1508.07909); over bytes: GPT-2, Radford et al. 2019.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, counted, shown
from .bytelevel import BYTES, byte_characters, utf8
from .chunks import Chunks, whole_words
from .vocabulary import Vocabulary, listed_tokens

Array = NDArray[Any]

LARGEST = 32 << 20  # bytes of a tokenizer.json; a model file holds it compressed in its header of 16 MiB
MOST_VALUES = 1 << 21  # lists, objects and commas in it, which take far more memory than their text
MOST_TOKENS = 1 << 21
GROUP = 512  # words per call of the package, which takes microseconds for a call
# The pre-tokenizer of GPT-2, after which words can be encoded one by one; older files have no use_regex.
GPT2_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


class BPETokenizer(Vocabulary):
    """Maps text to the tokens of a byte-level BPE and back; `content` is that of a tokenizer.json."""

    def __init__(self, content: str, size: int = 0) -> None:
        """`size` is the number of tokens of the model, if it has more than the file; the others stand for nothing.

        Raises DataError if the content is no byte-level BPE in which every byte has a token.
        """
        self.content = content
        self.about = _parsed(content)
        self._bytes = _bytes_of_tokens(self.about, size)

    def __len__(self) -> int:
        return len(self._bytes)

    def __repr__(self) -> str:
        return f"<BPETokenizer of {len(self):,} tokens>"

    @property
    def name(self) -> str:
        """The value of --tokens that makes one like it."""
        return f"bpe:{len(self)}"

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for. Raises IndexError if there is no such token."""
        if token < 0:
            raise IndexError(f"token id {token} is negative")
        return self._bytes[token]

    def stored(self) -> dict[str, Any]:
        """Return the content of the tokenizer.json as it is, compressed, and the number of tokens."""
        return {"tokens": "bpe", "tokenizer": self._packed, "size": len(self)}

    @functools.cached_property
    def _packed(self) -> str:
        return base64.b64encode(zlib.compress(self.content.encode(), 6)).decode()

    @classmethod
    def restored(cls, packed: str, size: int) -> BPETokenizer:
        """Return what `stored` holds. Raises ValueError or DataError if it is damaged."""
        return _restored(packed, size)

    def described(self) -> str:
        """Return how many tokens there are."""
        return f"of {len(self):,} in a byte-pair encoding"

    def shown(self, most: int = 300) -> str:
        """Return the tokens that are not single bytes, between bars."""
        return listed_tokens(self, min(BYTES, len(self)), most)

    def encode(self, text: str, what: str = "The text") -> Array:
        """Return the token ids of a text, (N,) int32. Half of a surrogate pair becomes U+FFFD.

        Raises ConfigError if the package `tokenizers` is missing.
        """
        text = utf8(text).decode("utf-8", "replace")
        return np.array(self.engine.encode(text, add_special_tokens=False).ids, np.int32)

    def encoded(self, blocks: Iterable[str]) -> Iterator[Array]:
        """Yield the token ids of a text of any length, as `encode` returns them for the whole of it.

        The text is cut where a space follows another character and precedes a third one: there, no token goes across.
        """
        chunks = Chunks(self._ids_of_each) if self.has_words_of_gpt2() else None
        special = self.added()
        for piece in whole_words(utf8(block).decode("utf-8", "replace") for block in blocks):
            if chunks is not None and not any(token in piece for token in special):
                yield chunks.encode(piece)
            else:
                yield np.array(self.engine.encode(piece, add_special_tokens=False).ids, np.int32)

    def single(self) -> list[int]:
        """Return the token of each byte."""
        return [self.about["model"]["vocab"][character] for character in byte_characters()]

    def merges(self) -> list[tuple[int, int, int]] | None:
        """Return (left, right, joined) tokens in the order in which they are joined; None if words are not GPT-2's."""
        vocab = self.about["model"]["vocab"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in self.about["model"].get("merges", [])]
        if not self.has_words_of_gpt2():
            return None
        try:
            return [(vocab[left], vocab[right], vocab[left + right]) for left, right in pairs]
        except (KeyError, TypeError, ValueError):
            raise DataError("A merge of this tokenizer.json is no pair of tokens.") from None

    def added(self) -> dict[str, int]:
        """Return the tokens that are found in a text before it is cut into words, such as <|endoftext|>."""
        return {each["content"]: each["id"] for each in self.about.get("added_tokens") or ()}

    def _ids_of_each(self, words: list[str]) -> list[bytes]:
        """Return the token ids of each word, as the bytes of int32."""
        groups = [words[start : start + GROUP] for start in range(0, len(words), GROUP)]
        found: list[bytes] = []
        batch = self.engine.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
        for group, encoding in zip(groups, batch, strict=True):
            data = np.array(encoding.ids, np.int32).tobytes()
            counts = np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(group))
            ends = (4 * np.cumsum(counts)).tolist()
            found += [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return found

    def has_words_of_gpt2(self) -> bool:
        """Return whether the text is first cut into words as GPT-2 does it, each of which is encoded by itself."""
        model, words = self.about["model"], self.about.get("pre_tokenizer") or {}
        pure = not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        same = all(words.get(name, True) == value for name, value in GPT2_WORDS.items())
        return pure and same and not self.about.get("normalizer")

    @functools.cached_property
    def engine(self) -> Any:
        """The `tokenizers.Tokenizer`. Raises ConfigError if the package is missing, DataError if it cannot read it."""
        try:
            engine = package().Tokenizer.from_str(self.content)
            engine.no_padding()
            engine.no_truncation()
            return engine
        except ConfigError:
            raise
        except Exception as error:  # the package raises nothing more precise
            raise DataError(f"The package tokenizers cannot read this tokenizer.json: {shown(error)}.") from None


@functools.lru_cache(maxsize=4)  # a film has the same vocabulary in each frame
def _restored(packed: str, size: int) -> BPETokenizer:
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), LARGEST + 1)
        return BPETokenizer(unpacked.decode(), size)
    except zlib.error as error:
        raise ValueError(f"its tokenizer is damaged: {error}") from None


def package(what: str = "Byte-pair encoding") -> Any:
    """Return the package `tokenizers`. Raises ConfigError, which says how to install it, if that is missing."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the package tokenizers ({error}): pip install 'bevia-fast[tokens]'."
        ) from error


def _parsed(content: str) -> dict[str, Any]:
    """Return a tokenizer.json of a byte-level BPE. Raises DataError for any other."""
    if len(content) > LARGEST or sum(map(content.count, "[{,")) > MOST_VALUES:
        raise DataError(f"This tokenizer.json is too large: more than {LARGEST >> 20} MiB or {MOST_VALUES:,} values.")
    try:
        found = json.loads(content)
        content.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DataError(f"This is no tokenizer.json: {shown(error)}.") from None
    model = found.get("model") if isinstance(found, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise DataError("This is no tokenizer.json: it has no model with a vocab.")
    if model.get("type") != "BPE" or not _has_bytes(found.get("decoder")):
        raise DataError(
            f"This tokenizer.json is of type {shown(model.get('type'), 40)}; this program reads byte-level BPE, whose "
            "decoder is ByteLevel."
        )
    added = found.get("added_tokens") or []
    right = isinstance(added, list) and all(
        isinstance(each, dict) and isinstance(each.get("content"), str) and each["content"]
        and type(each.get("id")) is int for each in added
    )
    if not right:
        raise DataError("The added_tokens of this tokenizer.json are no tokens.")
    about: dict[str, Any] = found
    return about


def _has_bytes(decoder: Any) -> bool:
    """Return whether a decoder, or one of a sequence of them, turns characters into bytes."""
    if not isinstance(decoder, dict):
        return False
    parts = decoder.get("decoders")
    return decoder.get("type") == "ByteLevel" or (isinstance(parts, list) and any(map(_has_bytes, parts)))


def _bytes_of_tokens(about: dict[str, Any], size: int) -> list[bytes]:
    """Return what each token stands for. Raises DataError if an id is no number, or if a byte has no token."""
    vocab: dict[str, Any] = about["model"]["vocab"]
    added = {each["id"]: each["content"] for each in about.get("added_tokens") or ()}
    ids = [*vocab.values(), *added]
    if not all(type(token) is int and 0 <= token < MOST_TOKENS for token in ids):
        raise DataError(f"The numbers of the tokens of this tokenizer.json are not from 0 to {MOST_TOKENS - 1:,}.")
    missing = [byte for byte, character in enumerate(byte_characters()) if character not in vocab]
    if missing:
        raise DataError(
            f"This tokenizer.json has no token for the byte {missing[0]:#04x}, so it cannot encode every text."
        )
    largest = max(ids) + 1
    if size and size < largest:
        raise DataError(f"This tokenizer.json has {counted(largest, 'token')}, but the model has {size:,}.")
    table = {character: byte for byte, character in enumerate(byte_characters())}
    found = [b""] * max(largest, size)
    for text, token in vocab.items():
        try:
            found[token] = bytes(table[character] for character in text)
        except KeyError:  # not written in the characters of bytes, as a token that is added may be
            found[token] = text.encode()
    for token, text in added.items():
        found[token] = text.encode()
    return found
