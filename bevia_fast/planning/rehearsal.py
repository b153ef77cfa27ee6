"""A training step without its arithmetic: which kernels it calls, how often, and on arrays of which shapes.

The real model runs on arrays that have shapes but no data, with a backend that only records its calls. So the result
stays right however the model changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ..config import ModelConfig, OptimizerName, TrainConfig
from ..errors import ConfigError
from ..kernels.bfloat16 import at_precision
from ..kernels.contract import OPERATIONS, Backend, Cost
from ..kernels.memory import outline
from ..model.activations import Activations
from ..model.dropout import DropoutStream
from ..model.gpt import Pass
from ..model.optimizer import Optimizer, Rates
from ..model.parameters import Parameters

Key = tuple[Any, ...]
MOST_TOKENS = 1 << 30  # per batch


@dataclass(frozen=True)
class Call:
    """A kernel call: an operation and its arguments by name. Arrays are outlines, which have a shape but no data."""

    operation: str
    arguments: dict[str, Any] = field(repr=False)  # printing an outline would read it

    @property
    def key(self) -> Key:
        """Equal for calls that take the same work and memory."""
        return (self.operation, *((name, _fingerprint(value)) for name, value in self.arguments.items()))

    @property
    def cost(self) -> Cost:
        """The flops and bytes of this call, by the contract's cost model."""
        return OPERATIONS[self.operation].cost(**self.arguments)


def _fingerprint(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.char, value.flags.c_contiguous
    return value > 0 if isinstance(value, int | float) else value


class CallCounter:
    """A backend that counts its calls and computes nothing."""

    def __init__(self) -> None:
        self.name = "counter"
        self.calls: dict[Key, Call] = {}  # one of each kind
        self.counts: Counter[Key] = Counter()
        for operation in OPERATIONS:
            setattr(self, operation, self._counting(operation))

    def _counting(self, operation: str) -> Callable[..., Any]:
        signature = OPERATIONS[operation].signature

        def count(*args: Any, **kwargs: Any) -> float:
            call = Call(operation, dict(signature.bind(*args, **kwargs).arguments))
            key = call.key
            self.calls.setdefault(key, call)
            self.counts[key] += 1
            return 0.0

        return count


@dataclass(frozen=True)
class Rehearsed:
    """A step: its calls, how often each is made, and outlines of its arrays."""

    calls: list[tuple[Call, int]]
    weights: Parameters
    optimizer: Optimizer
    activations: Activations

    @property
    def launches(self) -> int:
        """The number of kernel calls."""
        return sum(count for _, count in self.calls)


def rehearse(
    config: ModelConfig, batch: int,
    *, recompute: bool = False, accumulate: int = 1, optimizer: OptimizerName = "adamw",
) -> Rehearsed:  # fmt: skip
    """Rehearse one optimizer step on `accumulate` batches of `batch` sequences. Takes milliseconds, however large the
    model is.

    Raises ConfigError for a batch of more than MOST_TOKENS tokens.
    """
    if batch * config.ctx > MOST_TOKENS:
        raise ConfigError(f"A batch of {batch * config.ctx:,} tokens is too large; the limit is {MOST_TOKENS:,}.")
    activations = Activations(config, batch, config.ctx, recompute=recompute, empty=outline)
    found = [(call, accumulate * count) for call, count in _all_layers(config, batch, recompute)]
    weights, update = Parameters(config, empty=outline), CallCounter()
    kernels = cast(Backend, update)
    kernels.squared_norm(weights.flat)
    moments = Optimizer(optimizer, weights, Parameters(config, empty=outline, hidden=optimizer == "adamw"))
    moments.update(
        kernels, weights, weights, Rates.of(TrainConfig()), step=1, learning_rate=1.0, muon_rate=1.0,
        gradient_scale=1.0,
    )  # fmt: skip
    found += [(call, update.counts[key]) for key, call in update.calls.items()]
    return Rehearsed([(call, count) for call, count in found if count], weights, moments, activations)


def rehearse_evaluation(config: ModelConfig, batch: int) -> list[tuple[Call, int]]:
    """Return the calls of a forward pass and the loss of one batch, as in an evaluation, and how often each is made."""
    return [(call, count) for call, count in _all_layers(config, batch, False, backward=False) if count]


def _all_layers(
    config: ModelConfig, batch: int, recompute: bool, *, backward: bool = True
) -> list[tuple[Call, int]]:
    """Return each kind of call of a pass, and how often it is made."""
    calls: dict[Key, Call] = {}
    # every further layer adds what the last but one before it added: every second one may have a window
    one, two, three = (
        _pass(replace(config, layers=min(config.layers, n)), batch, recompute, calls, backward) for n in (1, 2, 3)
    )
    even, odd = config.layers // 2, (config.layers - 1) // 2  # layers behind the first
    counts = {key: one[key] + even * (two[key] - one[key]) + odd * (three[key] - two[key]) for key in calls}
    return [(call, counts[key]) for key, call in calls.items()]


def _pass(
    config: ModelConfig, batch: int, recompute: bool, calls: dict[Key, Call], backward: bool
) -> Counter[Key]:
    """Count each kind of call in a pass forward and, unless it is an evaluation, backward. Adds one call of each kind
    to `calls`."""
    weights = Parameters(config, empty=outline)
    acts = Activations(config, batch, config.ctx, recompute=recompute, empty=outline)
    tokens = outline((batch, config.ctx), np.int32)
    stream = DropoutStream(0, 0) if config.dropout > 0.0 and backward else None

    def count_calls(chunks: list[slice], head_chunks: list[slice]) -> Counter[Key]:
        counter = CallCounter()
        acts.chunks, acts.head_chunks = chunks, head_chunks
        step = Pass(config, at_precision(cast(Backend, counter), config.precision), weights, acts, stream)
        step.forward(tokens)
        step.head(tokens.reshape(-1), weights if backward else None, 1.0)
        if backward:
            step.backward(tokens, weights)
        calls.update(counter.calls)
        return counter.counts

    # chunks with the same number of rows make the same calls: what a pass over one adds to a pass over none
    chunks, head_chunks = acts.chunks, acts.head_chunks
    without = count_calls([], [])
    total = Counter(without)
    for one, arguments in ((chunks, lambda c: ([c], [])), (head_chunks, lambda c: ([], [c]))):
        times = Counter(c.stop - c.start for c in one)
        for size, chunk in {c.stop - c.start: c for c in one}.items():
            for key, count in count_calls(*arguments(chunk)).items():
                total[key] += times[size] * (count - without[key])
    return total
