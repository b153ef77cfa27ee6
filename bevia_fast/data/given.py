"""Vocabularies that someone else made: a tokenizer.json, GPT-2's pair of files, or an encoding of tiktoken.

All of them become the content of a tokenizer.json, so that one program encodes, and a model file needs no other.
"""

from __future__ import annotations

import base64
import importlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, shown
from ..naming import option
from .bpe import LARGEST, BPETokenizer
from .bytelevel import BYTES, byte_characters
from .selection import reading

TIKTOKEN = "tiktoken:"  # what names an encoding of that package
# The words of GPT-2, as tiktoken's versions write them: possessive quantifiers find the same.
GPT2_PATTERNS = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)
WITH_OTHER_WORDS = ("cl100k_base", "o200k_base", "o200k_harmony")  # files whose name says that GPT-2's words do not fit
MERGES = {"vocab.bpe": "encoder.json", "merges.txt": "vocab.json"}  # GPT-2's pair, by both names


def given_vocabulary(name: str) -> BPETokenizer:
    """Return the vocabulary that --tokens names, a file or `tiktoken:ENCODING`.

    Raises DataError if it cannot be read or is of another kind, and ConfigError if a package is missing.
    """
    if name.startswith(TIKTOKEN):
        return BPETokenizer(_encoding(name.removeprefix(TIKTOKEN)))
    path = Path(name)
    try:
        if path.name in MERGES:
            return BPETokenizer(_pair(path))
        content = _read(path)
        if path.suffix == ".tiktoken":
            return BPETokenizer(_ranks(path, content))
        return BPETokenizer(content)
    except DataError as error:
        raise DataError(f"{option('tokens', name)}: {error}") from None


def _read(path: Path) -> str:
    with reading(str(path)):
        if path.stat().st_size > LARGEST:
            raise DataError(f"It has more than {LARGEST >> 20} MiB.")
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"It is not UTF-8: byte {error.start}.") from None


def _pair(path: Path) -> str:
    """Return the tokenizer.json of GPT-2's vocabulary: merges in `path`, and the numbers in a JSON file beside it."""
    lines = [line for line in _read(path).split("\n") if line and not line.startswith("#version")]
    merges = [line.split(" ") for line in lines]
    if not all(len(pair) == 2 for pair in merges):
        raise DataError("A line of it is no pair of tokens.")
    try:
        vocab = json.loads(_read(path.with_name(MERGES[path.name])))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{MERGES[path.name]} beside it is no JSON: {shown(error)}.") from None
    if not isinstance(vocab, dict):
        raise DataError(f"{MERGES[path.name]} beside it has no numbers of tokens.")
    end = vocab.get("<|endoftext|>")
    return tokenizer_json(vocab, merges, special={} if end is None else {"<|endoftext|>": end})


def _ranks(path: Path, content: str) -> str:
    """Return the tokenizer.json of a file of tiktoken, whose lines are a token in base64 and its number."""
    if path.stem in WITH_OTHER_WORDS:
        raise DataError(
            f"Such a file does not say how its text is cut into words; {option('tokens', TIKTOKEN + path.stem)} knows "
            "it, and finds the file in the folder TIKTOKEN_CACHE_DIR."
        )
    try:
        pairs = [line.split() for line in content.splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError:
        raise DataError("A line of it is not a token in base64 and its number.") from None
    return from_ranks(ranks, GPT2_PATTERNS[0], {})


def _encoding(name: str) -> str:
    """Return the tokenizer.json of an encoding of the package tiktoken, which has its files or fetches them."""
    try:
        package: Any = importlib.import_module("tiktoken")
    except ImportError as error:
        raise ConfigError(
            f"{option('tokens', TIKTOKEN + name)} needs the package tiktoken ({error}): "
            "pip install 'bevia-fast[tokens]'."
        ) from error
    if name not in package.list_encoding_names():
        known = ", ".join(package.list_encoding_names())
        raise ConfigError(f"tiktoken has no encoding {shown(name, 60)}; it has {known}.")
    try:
        found = package.get_encoding(name)
    except Exception as error:  # whatever the network raises
        raise DataError(
            f"tiktoken cannot load {name}, whose files are neither in the folder TIKTOKEN_CACHE_DIR nor to be had from "
            f"the network ({type(error).__name__}); name a tokenizer.json, or GPT-2's vocab.bpe with encoder.json."
        ) from None
    return from_ranks(found._mergeable_ranks, found._pat_str, found._special_tokens)


def from_ranks(ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int]) -> str:
    """Return the tokenizer.json of an encoding of tiktoken: tokens by rank, the pattern of its words, special tokens.

    tiktoken joins the pair whose result has the lowest rank. The merge that makes a token is therefore that of the two
    parts into which the tokens of lower ranks cut it.
    """
    names = byte_characters()

    def written(token: bytes) -> str:
        return "".join(names[byte] for byte in token)

    if len({*ranks.values()}) != len(ranks) or any(bytes([byte]) not in ranks for byte in range(BYTES)):
        raise DataError("Its tokens do not have different numbers, or a byte has none.")
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _cut(ranks, token, rank)
            if len(parts) == 2:  # others are never made from a pair, and only found as whole words
                merges.append([written(part) for part in parts])
    return tokenizer_json({written(token): rank for token, rank in ranks.items()}, merges, pattern, special)


def _cut(ranks: Mapping[bytes, int], token: bytes, rank: int) -> list[bytes]:
    """Return the parts into which the tokens of ranks below `rank` cut a token."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while True:
        joined = [ranks.get(one + other, rank) for one, other in itertools.pairwise(parts)]
        least = min(joined, default=rank)
        if least >= rank:
            return parts
        place = joined.index(least)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def tokenizer_json(
    vocab: Mapping[str, int], merges: list[list[str]], pattern: str = GPT2_PATTERNS[0],
    special: Mapping[str, int] | None = None,
) -> str:  # fmt: skip
    """Return a tokenizer.json of a byte-level BPE. `pattern` is what a word is, as a regular expression."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    words: dict[str, Any] = level
    if pattern not in GPT2_PATTERNS:
        # this library's regular expressions take {1,3}+ for a repetition, and not for a possessive quantifier
        regex = {"Regex": pattern.replace("}+", "}")}
        split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
        words = {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}
    added = [
        {"id": token, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for text, token in (special or {}).items()
    ]  # fmt: skip
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
        "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": merges,
    }  # fmt: skip
    found = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": words, "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip
    return json.dumps(found, ensure_ascii=False)
