"""A training step without its arithmetic: which kernels it calls, how often, and on arrays of which shapes.

The model itself is run, on arrays that have shapes but no numbers, and with a backend that only notes what it is asked
for. So what is said here about a step is true however the model is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError
from ..kernels.contract import OPERATIONS, Backend, Cost
from ..kernels.memory import outline
from ..model.activations import Activations
from ..model.dropout import DropoutStream
from ..model.gpt import Pass
from ..model.parameters import Parameters

Key = tuple[Any, ...]
MOST_TOKENS = 1 << 30  # in a batch


@dataclass(frozen=True)
class Call:
    """What a kernel was asked for: an operation and its arguments by name, whose arrays are outlines."""

    operation: str
    arguments: dict[str, Any] = field(repr=False)  # outlines must not be read

    @property
    def key(self) -> Key:
        """The same for calls that take the same work and memory."""
        return (self.operation, *((name, _fingerprint(value)) for name, value in self.arguments.items()))

    @property
    def cost(self) -> Cost:
        """By the contract's cost model."""
        return OPERATIONS[self.operation].cost(**self.arguments)


def _fingerprint(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.char, value.flags.c_contiguous
    return value > 0 if isinstance(value, int | float) else value


class Noting:
    """A backend that notes its calls and computes nothing."""

    def __init__(self) -> None:
        self.name = "noting"
        self.calls: dict[Key, Call] = {}  # each kind once
        self.counts: Counter[Key] = Counter()
        for operation in OPERATIONS:
            setattr(self, operation, self._noting(operation))

    def _noting(self, operation: str) -> Callable[..., Any]:
        signature = OPERATIONS[operation].signature

        def noting(*args: Any, **kwargs: Any) -> float:
            call = Call(operation, dict(signature.bind(*args, **kwargs).arguments))
            key = call.key
            self.calls.setdefault(key, call)
            self.counts[key] += 1
            return 0.0

        return noting


@dataclass(frozen=True)
class Rehearsed:
    """A step: its calls, how often each is made, and its arrays."""

    calls: list[tuple[Call, int]]
    weights: Parameters
    activations: Activations

    @property
    def launches(self) -> int:
        """Calls of kernels altogether."""
        return sum(count for _, count in self.calls)


def rehearse(config: ModelConfig, batch: int, *, recompute: bool = False, accumulate: int = 1) -> Rehearsed:
    """One optimiser step of a model on batches of that many sequences: in milliseconds, however large the model is.

    Raises ConfigError for a batch that no memory holds.
    """
    if batch * config.ctx > MOST_TOKENS:
        raise ConfigError(f"A batch of {batch * config.ctx:,} tokens is more than any memory holds.")
    activations = Activations(config, batch, config.ctx, recompute=recompute, empty=outline)
    calls: dict[Key, Call] = {}
    # all layers but one are alike
    first, second = (_pass(replace(config, layers=min(config.layers, n)), batch, recompute, calls) for n in (1, 2))
    counts = {key: first[key] + (second[key] - first[key]) * (config.layers - 1) for key in calls}
    found = [(call, accumulate * counts[key]) for key, call in calls.items()]
    weights, update = Parameters(config, empty=outline), Noting()
    kernels = cast(Backend, update)
    kernels.squared_norm(weights.flat)
    kernels.adamw(
        weights.flat, weights.flat, weights.flat, weights.flat, step=1, decayed=weights.decayed, learning_rate=1.0,
        beta1=0.0, beta2=0.0, eps=1.0, weight_decay=0.0,
    )  # fmt: skip
    found += [(call, 1) for call in update.calls.values()]
    return Rehearsed([(call, count) for call, count in found if count], weights, activations)


def _pass(config: ModelConfig, batch: int, recompute: bool, calls: dict[Key, Call]) -> Counter[Key]:
    """How often each call is made in a forward and backward pass; one of each kind is added to `calls`."""
    weights = Parameters(config, empty=outline)
    acts = Activations(config, batch, config.ctx, recompute=recompute, empty=outline)
    tokens = outline((batch, config.ctx), np.int32)
    stream = DropoutStream(0, 0) if config.dropout > 0.0 else None

    def noted(chunks: list[slice], head_chunks: list[slice]) -> Counter[Key]:
        noting = Noting()
        acts.chunks, acts.head_chunks = chunks, head_chunks
        made = Pass(config, cast(Backend, noting), weights, acts, stream)
        made.forward(tokens)
        made.head(tokens.reshape(-1), weights, 1.0)
        made.backward(tokens, weights)
        calls.update(noting.calls)
        return noting.counts

    # chunks of as many rows are alike; what they add to a pass without any is what each of them makes
    chunks, head_chunks = acts.chunks, acts.head_chunks
    without = noted([], [])
    total = Counter(without)
    for one, arguments in ((chunks, lambda c: ([c], [])), (head_chunks, lambda c: ([], [c]))):
        times = Counter(c.stop - c.start for c in one)
        for size, chunk in {c.stop - c.start: c for c in one}.items():
            for key, count in noted(*arguments(chunk)).items():
                total[key] += times[size] * (count - without[key])
    return total
