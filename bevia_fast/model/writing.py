"""Generate text with a model, one token at a time.

When the context is full, the model continues with the last half of it. So the text can be of any length, and every
token except the first few depends on at least ctx/2 tokens before it. With rotary positions, each token sees
the ctx - 1 before it, however long the text is. See `kernels.windows`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..config import GenerateConfig
from ..data.vocabulary import Vocabulary
from ..errors import StoppedRun
from ..kernels.contract import Backend
from ..kernels.rng import stream_key, uniform
from .changes import unchanged
from .decoder import Decoder
from .gpt import GPT

Array = NDArray[Any]

LARGEST_BLOCK = 512  # the most tokens per call; the first call draws one, later ones 2, 4, ...
BLOCK_SECONDS = 1 / 60  # aim for calls no longer than this, because Ctrl-C waits for the current call
NOT_FINITE = "The model's logits are not finite; its weights are unusable."


def stream(model: GPT, tokenizer: Vocabulary, config: GenerateConfig, *, use_cache: bool = True) -> Iterator[str]:
    """Yield the text of the `config.length` tokens that follow `config.prompt`, as they are drawn.

    A token that is a part of a character waits for the others; see `Vocabulary.stream`. An empty prompt stands for a
    newline, or for the first token if none is a newline. Token i is a pure function of the weights, the text before it,
    and (seed, i). With `use_cache=False`, the model processes its whole window again for every token. This is slow and
    gives the same text: tests compare the cache with it.

    Raises DataError, before the first token, for a prompt with characters that are not in an alphabet, and StoppedRun
    if the logits are not finite.
    """
    tokens = tokenizer.encode(config.prompt, "The prompt") if config.prompt else np.array([tokenizer.first], np.int32)
    draw = _cached if use_cache else _uncached
    return tokenizer.stream(draw(model, tokens[-model.config.ctx :], config))


def _cached(model: GPT, tokens: Array, config: GenerateConfig) -> Iterator[int]:
    """Yield the tokens that follow, with a cache of keys and values.

    Draws a block of tokens per call: as many as take about BLOCK_SECONDS, the time between two frames on a screen.
    """
    decoder = Decoder(model)
    token = choose(model, decoder.read(tokens), config, 0)
    yield token
    done, size = 1, 1
    while done < config.length:
        drawn = np.zeros(min(size, config.length - done), np.int32)
        start = time.perf_counter()
        count = decoder.write(drawn, token, config, done)
        speed = drawn.size / max(time.perf_counter() - start, 1e-9)
        size = max(1, min(2 * size, int(speed * BLOCK_SECONDS), LARGEST_BLOCK))
        size = 1 << (size.bit_length() - 1)  # a power of 2, because the contract checks each shape only once
        yield from drawn[:count].tolist()
        if count < drawn.size:
            raise StoppedRun(NOT_FINITE)
        token, done = int(drawn[-1]), done + count


def _uncached(model: GPT, tokens: Array, config: GenerateConfig) -> Iterator[int]:
    """Yield the same tokens, but compute the whole window for each of them: the reference for `_cached`."""
    window, ctx, sliding = tokens.tolist(), model.config.ctx, model.config.positions == "rotary"
    for number in range(config.length):
        if len(window) > ctx and sliding:
            model = sliding_model(model, len(window), ctx)
        elif len(window) > ctx:
            window = window[-max(1, ctx // 2) :]
        token = choose(model, model.logits(np.array([window], np.int32))[0, -1], config, number)
        yield token
        window.append(token)


class Sliding:
    """A backend whose attention sees the last `reach` positions at most, in all layers."""

    def __init__(self, backend: Backend, reach: int) -> None:
        self.backend, self.reach, self.name = backend, reach, backend.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def attention_forward(self, out: Array, lse: Array, qkv: Array, **options: Any) -> None:
        """As in the contract, with a window of at most `reach`."""
        window = min(options.pop("window", 0) or self.reach, self.reach)
        self.backend.attention_forward(out, lse, qkv, window=window, **options)


def sliding_model(model: GPT, length: int, reach: int) -> GPT:
    """Return a model with rotary positions for a text of `length` tokens, of which each sees the last `reach`. It has
    the same weights, none of which belongs to a position."""
    backend: Any = unchanged(model.backend)  # the new model makes the changes again
    if not isinstance(backend, Sliding):
        backend = Sliding(backend, reach)
    return GPT(replace(model.config, ctx=length), cast(Backend, backend), model.parameters)


def choose(model: GPT, logits: Array, config: GenerateConfig, number: int) -> int:
    """Draw token `number` of the text from its logits (V,). Raises StoppedRun if a logit is not finite."""
    token = model.backend.sample_token(
        np.ascontiguousarray(logits), temperature=config.temperature, top_k=config.top_k, top_p=config.top_p,
        noise=uniform(stream_key(config.seed, "sampling"), number),
    )  # fmt: skip
    if token < 0:
        raise StoppedRun(NOT_FINITE)
    return token
