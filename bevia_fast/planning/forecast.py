"""Predict how long a training step takes on this machine, in about a second and a few dozen MB.

The forecast runs a small step of the same kind, one layer with as many channels on one chunk of rows, and times its
kernel calls one by one. If the context is longer than that of the small step, it also times attention alone. The calls
of the real step come from `rehearsal`, and each measured time is scaled by the kernel's cost model. Attention is scaled
by a line through two lengths instead, because the diagonal cuts a smaller share of its tiles as the context grows. With
a window, the place on the line is that of a context whose queries see as many keys on average.

No table of speeds is needed, so the forecast works on machines that nobody has tried. Its blind spot is memory: the
single small layer may stay in a cache in which the real model does not fit.
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

from ..config import ModelConfig, OptimizerName
from ..kernels.contract import OPERATIONS, Backend
from ..kernels.costs import pairs_seen
from ..kernels.instruments import Listener, Recorder, clock
from ..kernels.memory import aligned_zeros, outline
from ..kernels.tape import NOT_PLAYED
from ..model.activations import LONG, ROWS
from ..model.dropout import DropoutStream
from ..model.gpt import GPT
from ..model.parameters import Parameters
from .rehearsal import Call, Rehearsed

WEIGHT_BYTES = 24 << 20  # limit for the small model's weights; a wider model is timed with fewer channels
MOST_ROWS = {"numba": 4096, "numpy": 2048}
MOST_CTX = {"numba": 2048, "numpy": 256}  # of the small model; attention alone is timed up to LONGER
LONGER = {"numba": 4096, "numpy": 1024}
SECONDS, LEAST_TIMES = 0.7, 3  # how long, and how often at least, the small step is repeated
MOST_VOCABULARY, MOST_UPDATED = 4096, 1 << 21
MUON_LAYERS = 8
Kind = tuple[Any, ...]


class Forecast:
    """Measured speeds of this machine, to predict steps of one model at any batch, context and depth."""

    def __init__(
        self, config: ModelConfig, batch: int, backend: Backend, optimizer: OptimizerName = "adamw"
    ) -> None:
        self.config, self.backend = config, backend
        self.small, self.sequences = small_model(config, batch, backend.name)
        self._times: dict[Kind, list[float]] = defaultdict(list)
        self._gap = 0.0
        self._step()
        self._update()
        if optimizer == "muon":
            self._muon()
        self._attention: dict[str, tuple[float, float]] = {}
        if config.ctx > self.small.ctx:
            self._long_attention()

    def seconds(self, rehearsed: Rehearsed) -> float:
        """Return the expected seconds of one optimizer step."""
        return self.seconds_of(rehearsed.calls)

    def seconds_of(self, calls: Sequence[tuple[Call, int]]) -> float:
        """Return the expected seconds of kernel calls, each made so many times."""
        return sum(count * (self._gap + self._call(call)) for call, count in calls)

    def _call(self, call: Call) -> float:
        if call.operation in self._attention:
            each_row, each_key = self._attention[call.operation]
            lse = call.arguments["lse"]
            T = lse.shape[2]
            context = 2 * pairs_seen(T, call.arguments.get("window", 0)) / T - 1  # T without a window
            return float(lse.size * (each_row + each_key * context))
        kind = kind_of(call, self.config)
        known = self._times.get(kind) or self._times.get(kind[:2]) or self._times[kind[:1]]
        return statistics.median(known) * work(call)

    def _step(self) -> None:
        """Time the calls of the small step, and Python's time between them."""
        config, listener, recorder = self.small, Listener(self.backend), Recorder(self.backend)
        weights, gradients = Parameters.initial(config, 0), Parameters(config)
        model = GPT(config, cast(Backend, listener), weights)
        shape = (2, self.sequences, config.ctx)
        tokens, targets = np.random.default_rng(0).integers(0, config.vocab_size, shape, dtype=np.int32)

        def step() -> None:
            model.loss_and_gradients(tokens, targets, gradients, dropout=DropoutStream(0, 0))

        step()  # compile the kernels and touch the memory for the first time
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
                self._times[part].append(statistics.median(times) / work(call))

    def _update(self) -> None:
        """Time gradient norm and AdamW, which pass over all weights. MOST_UPDATED weights no longer fit the caches, so
        a larger model is timed with as many."""
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
        taken = recorder.taken()[4:]  # two calls per round; the first two rounds warm up
        for number, call in enumerate(_calls(listener)[:2]):
            self._times[call.operation,].append(statistics.median(taken[number::2]) / 1e9 / work(call))

    def _muon(self) -> None:
        """Time Muon on several layers like that of the small model, if they are small: with few matrices, some of many
        threads would have nothing to do."""
        layer = 12 * self.small.dim**2 * np.dtype(self.config.dtype).itemsize
        layers = max(1, min(self.config.layers, MUON_LAYERS, WEIGHT_BYTES // layer))
        weights, gradients, first = (Parameters(replace(self.small, layers=layers)) for _ in range(3))
        listener = Listener(self.backend)
        kernels, taken = cast(Backend, listener), list[float]()
        numbers = np.random.default_rng(0).normal(size=gradients.flat.size)
        matrices, hidden = weights.hidden_matrices, weights.hidden
        for _ in range(2 + LEAST_TIMES):  # the first two warm up
            gradients.flat[...] = numbers
            started = time.perf_counter()
            kernels.muon(
                weights.flat[hidden], gradients.flat[hidden], first.flat[hidden], matrices=matrices, learning_rate=0.0,
                beta=0.95, weight_decay=0.1,
            )  # fmt: skip
            taken.append(time.perf_counter() - started)
        call = _calls(listener)[0]
        self._times["muon",].append(statistics.median(taken[2:]) / work(call))

    def _long_attention(self) -> None:
        """Time attention alone at two lengths and fit a line through the times per row."""
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
            each_key = min(max(0.0, (s2 - s1) / (t2 - t1)), s2 / t2)  # the constant part cannot be negative either
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
    """Return the model of one layer that is timed in place of `config`, and the number of sequences in its batch."""
    heads, size, itemsize = config.heads, config.head_size, np.dtype(config.dtype).itemsize
    while 12 * (heads * size) ** 2 * itemsize > WEIGHT_BYTES:
        heads, size = (heads // 2, size) if heads > 1 else (1, size // 4 * 2)  # even, for rotary positions
    C = heads * size
    rows = min(MOST_ROWS[backend], ROWS)
    ctx = min(config.ctx, MOST_CTX[backend], rows)
    if config.ctx < LONG * config.dim:  # stay below the context where layers keep less and call other kernels
        ctx = min(ctx, LONG * C - 1)
    small = replace(config, dim=C, heads=heads, ctx=ctx, layers=1, vocab_size=min(config.vocab_size, MOST_VOCABULARY))
    return small, max(1, min(batch, rows // ctx))


def work(call: Call) -> float:
    """Return what the time of a call is in proportion to, among calls of one kind: its floating-point operations, or
    the bytes of one that only copies, such as an embedding without a table of positions."""
    return call.cost.flops or call.cost.bytes


def kind_of(call: Call, config: ModelConfig) -> Kind:
    """Return the kind of a call: calls of the same kind take time in proportion to their cost.

    A kind consists of the operation, the widths of its weight in units of the channels, and the names of the arguments
    given. A prefix of a kind groups calls that are less alike.
    """
    given = tuple(sorted(name for name, value in call.arguments.items() if value is not None and value is not False))
    widths: tuple[Any, ...] = ()
    if "weight" in call.arguments:
        widths = tuple(_width(size, config) for size in call.arguments["weight"].shape)
    return call.operation, widths, given


def _width(size: int, config: ModelConfig) -> str:
    return "V" if size == config.vocab_size else f"{size / config.dim:g} C"


def products(rehearsed: Rehearsed) -> float:
    """Return the floating-point operations of a step's matrix products, including the recomputed ones."""
    names: Sequence[str] = ("linear_forward", "linear_backward", "attention_forward", "attention_backward", "muon")
    return sum(call.cost.flops * count for call, count in rehearsed.calls if call.operation in names)
