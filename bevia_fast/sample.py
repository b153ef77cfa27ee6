"""Writing text with a model, a character at a time.

The context may fill up. Then the model starts again from the last half of it, and goes on: so the text can be as long
as one likes, each character is drawn from at least ctx/2 characters before it, and most of the work of the
key/value cache is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .config import GenerateConfig
from .decoder import Decoder
from .errors import StoppedRun
from .kernels.rng import stream_key, uniform
from .model import GPT
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from .run import Run

Array = NDArray[Any]


def generate(run: Run | str | Path, prompt: str = "", **options: Any) -> str:
    """A text that begins with `prompt` and goes on as the model of `run` thinks likely.

    `run` is what `train` returned, or the path of a run folder. Options are the other fields of `GenerateConfig`:
    length=500, temperature=0.8, top_k=0, top_p=1.0, seed=1337, and for a path backend="numba", threads=0.
    Raises DataError for a prompt with characters that the model never saw.
    """
    config = GenerateConfig(run="", prompt=prompt, **options)
    if isinstance(run, str | Path):
        from .run import Run

        run = Run.load(run, config.backend, config.threads)
    return prompt + "".join(stream(run.model, run.tokenizer, config))


def stream(model: GPT, tokenizer: Tokenizer, config: GenerateConfig, *, use_cache: bool = True) -> Iterator[str]:
    """The characters that follow `config.prompt`, as they are drawn.

    An empty prompt stands for a new line, or for the first character of the alphabet if that has none. Character i is
    a pure function of the weights, the text before it, and (seed, i). With `use_cache` = False the model reads all of
    its window again for each character: slow, and the same text.
    """
    text = config.prompt or ("\n" if "\n" in tokenizer.alphabet else tokenizer.alphabet[0])
    tokens = tokenizer.encode(text, "The prompt").tolist()[-model.config.ctx :]
    return _stream(_cached(model) if use_cache else _uncached(model), tokens, tokenizer, config)


def _stream(
    feed: Callable[[list[int]], Array], tokens: list[int], tokenizer: Tokenizer, config: GenerateConfig
) -> Iterator[str]:
    key = stream_key(config.seed, "sampling")
    logits = feed(tokens)
    for index in range(config.length):
        token = choose(logits, config.temperature, config.top_k, config.top_p, uniform(key, index))
        yield tokenizer.alphabet[token]
        if index + 1 < config.length:
            logits = feed([token])


def _restart(window: list[int]) -> list[int]:
    """What is read again when the context is full, the newest token included."""
    return window[-max(1, (len(window) - 1) // 2) :]


def _cached(model: GPT) -> Callable[[list[int]], Array]:
    """Takes in tokens and returns the next one's logits (V,), computing the newest position only where it can."""
    decoder, window = Decoder(model), list[int]()

    def feed(tokens: list[int]) -> Array:
        window.extend(tokens)
        if len(window) > model.config.ctx:
            window[:] = _restart(window)
        elif len(tokens) == 1 and decoder.position:
            return decoder.feed(tokens[0])
        return decoder.read(np.array(window, np.int32))

    return feed


def _uncached(model: GPT) -> Callable[[list[int]], Array]:
    """The same, computing all positions."""
    window = list[int]()

    def feed(tokens: list[int]) -> Array:
        window.extend(tokens)
        if len(window) > model.config.ctx:
            window[:] = _restart(window)
        logits: Array = model.logits(np.array([window], np.int32))[0, -1]
        return logits

    return feed


def choose(logits: Array, temperature: float, top_k: int, top_p: float, noise: float) -> int:
    """One token from logits (V,) with `noise` uniform in [0, 1): inverse transform sampling, likeliest token first.

    Temperature 0 takes the largest logit, the first of equal ones. `top_k` > 0 keeps the k largest; `top_p` keeps the
    fewest that together have at least this probability (Holtzman et al. 2020).
    """
    if not np.isfinite(logits).all():
        raise StoppedRun("The model's logits are not finite; its weights are of no use.")
    if temperature == 0.0:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the largest to exp(-inf) = 0
        scores = (logits[order].astype(np.float64) - float(logits[order[0]])) / temperature
    cumulative = np.cumsum(np.exp(scores))
    cumulative /= cumulative[-1]
    kept = min(int(np.searchsorted(cumulative, top_p)) + 1, cumulative.size)
    drawn = int(np.searchsorted(cumulative[:kept], noise * cumulative[kept - 1], side="right"))
    return int(order[min(drawn, kept - 1)])  # the product may round up to the last sum
