"""Learn a byte-level BPE from a text: join the pair of tokens that occurs most often, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .bpe import BPETokenizer, package
from .bytelevel import BYTES, utf8
from .chunks import whole_words

LEARNED = 64 << 20  # bytes of text that a vocabulary is learned from; of a longer one, parts at even distances
LEAST_OFTEN = 2  # occurrences of a pair that is joined


def learned(blocks: Callable[[], Iterable[str]], tokens: int, share: float) -> BPETokenizer:
    """Return the BPE of at most `tokens` tokens of the first `share` of a text, which `blocks()` yields each time anew.

    A text with few different pairs gives fewer tokens. The same text gives the same ones. Raises ConfigError if the
    package `tokenizers` is missing.
    """
    found = package("Learning a byte-pair encoding")
    engine = found.Tokenizer(found.models.BPE())
    engine.pre_tokenizer = found.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = found.decoders.ByteLevel()
    trainer = found.trainers.BpeTrainer(
        vocab_size=max(tokens, BYTES), min_frequency=LEAST_OFTEN, special_tokens=[], show_progress=False,
        initial_alphabet=found.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    size = sum(len(utf8(block)) for block in blocks())
    engine.train_from_iterator(whole_words(_sample(blocks(), size * share)), trainer)
    return BPETokenizer(engine.to_str())


def _sample(blocks: Iterable[str], size: float) -> Iterator[str]:
    """Yield the blocks in the first `size` bytes of a text; of more than LEARNED, only a part at even distances."""
    kept, done, taken = min(1.0, LEARNED / max(size, 1.0)), 0, 0.0
    for block in blocks:
        data = utf8(block)
        if done + len(data) > size:
            block = data[: int(size - done)].decode("utf-8", "ignore")
        if taken <= done * kept and block:
            yield block
            taken += len(data)
        done += len(data)
        if done >= size:
            return
