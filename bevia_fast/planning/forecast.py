"""How long a training step will take on this machine, found in about a second and a few dozen MB.

A small step of the same kind is made: one layer, of as many channels, on one chunk of rows; and attention alone, where
the context is longer than that. The calls of its kernels are timed one by one. The calls of the step that is meant are
known (see `rehearsal`); each takes as much longer as its cost model says, and attention, whose tiles are less often cut
by the diagonal the longer the context is, as the line through two lengths says. Measuring needs no table of speeds, and
so holds on machines that nobody has seen; what it sees of memory is a layer that is still in a cache.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..config import ModelConfig
from ..kernels.contract import OPERATIONS, Backend
from ..kernels.instruments import Listener, Recorder, clock
from ..kernels.memory import aligned_zeros, outline
from ..kernels.tape import NOT_PLAYED
from ..model.activations import LONG, ROWS
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .rehearsal import Call, Rehearsed

WEIGHT_BYTES = 24 << 20  # of the small model: one with more channels gets fewer
MOST_ROWS = {"numba": 4096, "numpy": 2048}
MOST_CTX = {"numba": 2048, "numpy": 256}  # of the small model; attention is timed alone up to LONGER
LONGER = {"numba": 4096, "numpy": 1024}
SECONDS, LEAST_TIMES = 0.7, 3  # of repeating the small step
MOST_VOCABULARY, MOST_UPDATED = 4096, 1 << 21
Kind = tuple[Any, ...]


class Forecast:
    """Times of this machine, for steps of one model with any batch, context and depth."""

    def __init__(self, config: ModelConfig, batch: int, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.small, self.sequences = small_model(config, batch, backend.name)
        self._times: dict[Kind, list[float]] = defaultdict(list)
        self._gap = 0.0
        self._step()
        self._update()
        self._attention: dict[str, tuple[float, float]] = {}
        if config.ctx > self.small.ctx:
            self._long_attention()

    def seconds(self, rehearsed: Rehearsed) -> float:
        """Of one optimiser step."""
        total = rehearsed.launches * self._gap
        for call, count in rehearsed.calls:
            total += count * self._call(call)
        return total

    def _call(self, call: Call) -> float:
        if call.operation in self._attention:
            each_row, each_key = self._attention[call.operation]
            lse = call.arguments["lse"]
            return float(lse.size * (each_row + each_key * lse.shape[2]))
        kind = kind_of(call, self.config)
        known = self._times.get(kind) or self._times.get(kind[:2]) or self._times[kind[:1]]
        return statistics.median(known) * call.cost.flops

    def _step(self) -> None:
        """Time the calls of the small step."""
        config, listener, recorder = self.small, Listener(self.backend), Recorder(self.backend)
        weights, gradients = Parameters.initial(config, 0), Parameters(config)
        model = GPT(config, cast(Backend, listener), weights)
        shape = (2, self.sequences, config.ctx)
        tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, shape, dtype=np.int32)

        def step() -> None:
            model.loss_and_gradients(tokens, targets, gradients, dropout=DropoutStream(0, 0))

        step()  # compiles, and touches memory for the first time
        calls = _calls(listener)
        model.backend = cast(Backend, recorder)
        for _ in range(NOT_PLAYED):
            step()
        began, gaps, spent = time.perf_counter(), list[float](), [list[float]() for _ in calls]
        while len(gaps) < LEAST_TIMES or time.perf_counter() - began < SECONDS:
            recorder.times.clear()
            started = clock()
            step()
            whole = clock() - started
            found = recorder.taken()
            for one, taken in zip(spent, found, strict=True):
                one.append(taken / 1e9)
            gaps.append((whole - sum(found)) / 1e9 / len(calls))
            if len(gaps) >= LEAST_TIMES and time.perf_counter() - began > 4 * SECONDS:
                break
        self._gap = statistics.median(gaps)
        for call, times in zip(calls, spent, strict=True):
            kind = kind_of(call, config)
            for part in (kind, kind[:2], kind[:1]):
                self._times[part].append(statistics.median(times) / call.cost.flops)

    def _update(self) -> None:
        """Time gradient norm and AdamW, which pass over all weights: over as many, or as many as leave the caches."""
        count = min(Parameters(self.config, empty=outline).flat.size, MOST_UPDATED)
        weights, gradients, first, second = (aligned_zeros(count, self.config.dtype) for _ in range(4))
        listener = Listener(self.backend)
        recorder = Recorder(cast(Backend, listener))
        kernels = cast(Backend, recorder)
        for _ in range(2 + LEAST_TIMES):
            kernels.squared_norm(gradients)
            kernels.adamw(
                weights, gradients, first, second, step=1, decayed=count, learning_rate=0.0, beta1=0.9, beta2=0.99,
                eps=1e-8, weight_decay=0.1,
            )  # fmt: skip
        taken = recorder.taken()[4:]  # two calls a round, of which the first two rounds warm up
        for number, call in enumerate(_calls(listener)[:2]):
            self._times[call.operation,].append(statistics.median(taken[number::2]) / 1e9 / call.cost.flops)

    def _long_attention(self) -> None:
        """Time attention alone at two lengths."""
        config, name = self.config, self.backend.name
        T = min(config.ctx, LONGER[name])
        heads = min(config.heads, 4 if T <= 2048 else 2)
        C = heads * config.head_size
        points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for length in (T // 2, T):
            qkv, dqkv = (aligned_zeros((1, length, 3 * C), config.dtype) for _ in range(2))
            qkv[...] = np.random.default_rng(0).normal(size=qkv.shape)
            out, lse = aligned_zeros((1, length, C), config.dtype), aligned_zeros((1, heads, length), config.dtype)
            options: dict[str, Any] = {"dropout_rate": config.dropout, "dropout_key": 1}
            for operation, arguments in (
                ("attention_forward", (out, lse, qkv)), ("attention_backward", (dqkv, out, qkv, out, lse)),
            ):  # fmt: skip
                function = functools.partial(getattr(self.backend, operation), *arguments, **options)
                taken = _median_seconds(function)
                points[operation].append((length, taken / (heads * length)))
        for operation, ((t1, s1), (t2, s2)) in points.items():
            each_key = min(max(0.0, (s2 - s1) / (t2 - t1)), s2 / t2)  # a row by itself takes no less than nothing
            self._attention[operation] = (s2 - each_key * t2, each_key)


def _calls(listener: Listener) -> list[Call]:
    return [
        Call(operation, dict(OPERATIONS[operation].signature.bind(*arguments, **options).arguments))
        for operation, arguments, options in listener.called
    ]


def _median_seconds(function: Callable[[], Any]) -> float:
    function()
    times: list[float] = []
    while len(times) < LEAST_TIMES and sum(times) < SECONDS:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def small_model(config: ModelConfig, batch: int, backend: str) -> tuple[ModelConfig, int]:
    """A model of one layer that is timed for another one, and the sequences of its batch."""
    heads, size, itemsize = config.heads, config.head_size, np.dtype(config.dtype).itemsize
    while 12 * (heads * size) ** 2 * itemsize > WEIGHT_BYTES:
        heads, size = (heads // 2, size) if heads > 1 else (1, size // 2)
    C = heads * size
    rows = min(MOST_ROWS[backend], ROWS)
    ctx = min(config.ctx, MOST_CTX[backend], rows)
    if config.ctx < LONG * config.dim:  # the same kernels are called where layers keep the same
        ctx = min(ctx, LONG * C - 1)
    small = replace(config, dim=C, heads=heads, ctx=ctx, layers=1, vocab_size=min(config.vocab_size, MOST_VOCABULARY))
    return small, max(1, min(batch, rows // ctx))


def kind_of(call: Call, config: ModelConfig) -> Kind:
    """Calls of the same kind take times in proportion to their cost: the operation, how wide its operands are in
    units of the channels, and what it is given. Shorter ones are less alike."""
    given = tuple(sorted(name for name, value in call.arguments.items() if value is not None and value is not False))
    widths: tuple[Any, ...] = ()
    if "weight" in call.arguments:
        widths = tuple(_width(size, config) for size in call.arguments["weight"].shape)
    return call.operation, widths, given


def _width(size: int, config: ModelConfig) -> str:
    return "V" if size == config.vocab_size else f"{size / config.dim:g} C"


def products(rehearsed: Rehearsed) -> float:
    """Floating-point operations of a step's matrix products, those included that are made again."""
    names: Sequence[str] = ("linear_forward", "linear_backward", "attention_forward", "attention_backward")
    return sum(call.cost.flops * count for call, count in rehearsed.calls if call.operation in names)
