"""Which vocabulary a text gets: what --tokens says, what a model file holds, and what the cache has learned before."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..config import BYTE_TOKENS, CHARACTERS, tokens_to_learn
from ..errors import CheckpointError, DataError
from ..files import write_atomically
from ..reporter import Reporter
from .bpe import BPETokenizer
from .bytelevel import ByteTokenizer
from .given import given_vocabulary
from .learning import learned
from .tokenizer import Tokenizer
from .vocabulary import Vocabulary

KINDS = (CHARACTERS, BYTE_TOKENS, "bpe")


def restored(about: dict[str, Any]) -> Vocabulary:
    """Return the vocabulary of a model file from its parsed JSON; see `Vocabulary.stored`.

    Raises KeyError, TypeError, ValueError or DataError if it is invalid.
    """
    kind = about.get("tokens", CHARACTERS)
    if kind not in KINDS:
        raise ValueError("its kind of tokens is unknown")
    if kind == BYTE_TOKENS:
        return ByteTokenizer()
    if kind == CHARACTERS:
        if not isinstance(about["alphabet"], str):
            raise ValueError("the alphabet is not text")
        return Tokenizer(about["alphabet"])
    content, size = about["tokenizer"], about["size"]
    if not isinstance(content, str) or type(size) is not int or not 0 < size <= 1 << 21:
        raise ValueError("its tokenizer is not a text and a size")
    return BPETokenizer.restored(content, size)


def fixed_vocabulary(tokens: str) -> Vocabulary | None:
    """Return the vocabulary that --tokens names whatever the text is; None for the characters of the text, and for a
    vocabulary that is learned. Raises DataError for a file that is none."""
    if tokens == CHARACTERS or tokens_to_learn(tokens):
        return None
    return ByteTokenizer() if tokens == BYTE_TOKENS else given_vocabulary(tokens)


def learned_vocabulary(
    tokens: str, blocks: Callable[[], Iterable[str]], share: float, entry: Path | None, reporter: Reporter
) -> BPETokenizer:
    """Return the vocabulary that --tokens bpe:N asks for, from the cache or learned from `share` of a text.

    `entry` is its file in the cache; None if the text has no place there.
    """
    found = entry and _cached(entry)
    wanted = tokens_to_learn(tokens)
    if not found:
        with reporter.counting("Learning the tokens", 0):
            found = learned(blocks, wanted, share)
        if entry:
            digest = hashlib.sha256(found.content.encode()).hexdigest()
            with contextlib.suppress(OSError, CheckpointError):  # the cache may be read-only; it only saves time
                entry.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(entry, json.dumps({"sha256": digest, "tokenizer": found.content}).encode())
    if len(found) < wanted:
        reporter.note(f"the text has pairs for {len(found):,} tokens only, not for {wanted:,}.")
    return found


def _cached(entry: Path) -> BPETokenizer | None:
    """Return the vocabulary of an entry of the cache; None if it is missing or damaged."""
    try:
        about = json.loads(entry.read_bytes())
        if hashlib.sha256(about["tokenizer"].encode()).hexdigest() == about["sha256"]:
            return BPETokenizer(about["tokenizer"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, DataError):
        pass
    return None
