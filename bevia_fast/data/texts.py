"""The text of a run as tokens: read it, find or learn its vocabulary, and encode it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..config import TrainConfig, tokens_to_learn
from ..errors import DataError
from ..reporter import Reporter
from .bytelevel import utf8
from .sources import TextSource, sources, text_blocks, text_source
from .tokenfile import TRAINING_SHARE, CodedText, cache_folder, coded_text, entry_key
from .vocabularies import fixed_vocabulary, learned_vocabulary
from .vocabulary import Vocabulary

LEFT = 86400  # seconds after which the copy of a stream belongs to no process


def encoded_text(
    config: TrainConfig, reporter: Reporter | None = None, vocabulary: Vocabulary | None = None
) -> CodedText:
    """Return the text that the options of a run name, in the tokens of `vocabulary`, or those that the options name.

    A vocabulary that is learned from the text is learned once, and then found in the cache as long as the files stay as
    they are. Raises DataError or ConfigError for a text or a vocabulary that cannot be had; see `coded_text`.
    """
    reporter, source = reporter or Reporter(), text_source(config)
    vocabulary = vocabulary or fixed_vocabulary(config.tokens)
    if vocabulary is not None or not tokens_to_learn(config.tokens):
        return coded_text(source, reporter, vocabulary)
    files = sources(source)
    with contextlib.nullcontext(source) if files is not None else _stored(source) as again:
        entry = cache_folder() / f"{_key(again, config.tokens)}.vocabulary" if files is not None else None
        vocabulary = learned_vocabulary(config.tokens, _blocks(again), TRAINING_SHARE, entry, reporter)
        return coded_text(again, reporter, vocabulary)


def _blocks(source: TextSource) -> Callable[[], Iterable[str]]:
    return lambda: text_blocks(source)


def _key(source: TextSource, tokens: str) -> str:
    """Return the name of the entry of a vocabulary that is learned from files, or from the default text."""
    files = sources(source) or []
    about = entry_key(files, source.form) if files else "".join(text_blocks(source))
    return hashlib.sha256(f"{tokens} {about}".encode()).hexdigest()[:32]


@contextlib.contextmanager
def _stored(source: TextSource) -> Iterator[TextSource]:
    """Copy a stream, which can be read only once, to a file that is removed at the end of the context."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".stream*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > LEFT:
                shutil.rmtree(left, ignore_errors=True)
        place = tempfile.mkdtemp(dir=folder, prefix=".stream")
    except OSError as error:
        raise DataError(f"There is no room for a copy of the text: {error.strerror or error}.") from None
    try:
        path = Path(place, "stream.txt")
        with open(path, "wb") as file:
            for block in text_blocks(source):
                try:
                    file.write(utf8(block))
                except OSError as error:
                    raise DataError(f"Cannot write a copy of the text to {path}: {error.strerror or error}.") from None
        yield TextSource((os.fspath(path),))
    finally:
        shutil.rmtree(place, ignore_errors=True)
