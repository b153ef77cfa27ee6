"""One training step taken apart: when each kernel began and ended, and what lay between.

The backend handed to the model is replaced by one whose functions look at the clock before and after the call. What a
call belongs to, its layer and phase, is found out once, from the arrays it is given; a timed step only notes times, for
every step makes the same calls in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .bench_client import Progress
from .bench_config import ProfileStepConfig
from .bench_step import StepSize, TrainingStep
from .capacity import refuse_too_large, training_bytes
from .kernels import Backend
from .kernels.contract import OPERATIONS
from .run import describe_backend, open_backend
from .timing import Rules, Stopwatch, Summary, clock, percentile, take_turns

KEPT = 2000  # steps whose times are kept, at most
TURN_STEPS = 3
TRACED = 5  # steps that a trace shows


@dataclass(frozen=True)
class Call:
    """One launch of a kernel in a step. `place`: "layer 3", "embeddings", "head" or "optimizer"."""

    operation: str
    phase: str
    place: str
    flops: float
    bytes: float


class Recorder:
    """A backend that notes the time around each call of another."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.times: list[int] = []  # begin, end, begin, end, ...
        for operation in OPERATIONS:
            setattr(self, operation, self._noting(operation, getattr(backend, operation)))

    def _noting(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        note = self.times.append

        def noting(*args: Any, **kwargs: Any) -> Any:
            note(clock())
            result = function(*args, **kwargs)
            note(clock())
            return result

        return noting



class Listener:
    """A backend that notes what each call of another is given."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self.called: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        for operation in OPERATIONS:
            setattr(self, operation, self._listening(operation, getattr(backend, operation)))

    def _listening(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def listening(*args: Any, **kwargs: Any) -> Any:
            self.called.append((operation, args, kwargs))
            return function(*args, **kwargs)

        return listening


@dataclass(frozen=True)
class StepProfile:
    """The parts of a step, in nanoseconds: means over the steps whose time lies near the median, from the 40th
    to the 60th percentile, for medians of parts would not add up.

    `durations` belong to `calls`; `gaps` is one longer: Python's time before each call and after the last. Together
    they are `whole`. `plain` and `noted` are the medians without and with the instruments, taken in turns.
    """

    size: StepSize
    kernels: str
    calls: tuple[Call, ...]
    durations: tuple[float, ...]
    gaps: tuple[float, ...]
    whole: float
    plain: Summary
    noted: Summary
    first_s: float
    steps: int
    recorded: tuple[tuple[int, ...], ...]  # the last steps: begin, each call's begin and end, end; for a trace

    @property
    def slowdown(self) -> float:
        """By how much measuring slows the step: 0.01 is 1 %."""
        return self.noted.median / self.plain.median - 1.0

    @property
    def coverage(self) -> float:
        """The parts together, as a share of the step without the instruments."""
        return (sum(self.durations) + sum(self.gaps)) / self.plain.median


class RecordedStep:
    """A step that notes when its calls begin and end."""

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.recorder = Recorder(step.backend)
        self.plain = step.backend
        self.recorded: deque[tuple[int, ...]] = deque(maxlen=KEPT)
        self.calls = self._label()

    def run(self) -> None:
        """One step, noted."""
        times = self.recorder.times
        began = clock()
        self._run_with(self.recorder)
        ended = clock()
        self.recorded.append((began, *times, ended))
        times.clear()

    def _run_with(self, backend: Recorder | Listener) -> None:
        step = self.step
        step.backend = step.model.backend = cast(Backend, backend)
        step.run()
        step.backend = step.model.backend = self.plain

    def _label(self) -> tuple[Call, ...]:
        """What each call of a step belongs to: found from the memory that it works on."""
        listener = Listener(self.plain)
        self._run_with(listener)
        home = _homes(self.step)
        calls: list[Call] = []
        phase = "forward"
        for operation, args, kwargs in listener.called:
            entry = OPERATIONS[operation]
            bound = entry.signature.bind(*args, **kwargs).arguments
            place = _place(bound, home)
            if operation in ("squared_norm", "adamw"):
                phase, place = "update", "optimizer"
            elif place == "head" and phase == "forward":
                phase = "head"
            elif phase == "head" and place != "head":
                phase = "backward"
            cost = entry.cost(**bound)
            calls.append(Call(operation, phase, place, cost.flops, cost.bytes))
        return tuple(calls)


def _homes(step: TrainingStep) -> list[tuple[int, int, str]]:
    """(first byte, last byte, place) of the arrays that belong to one place only."""
    found = []

    def add(array: Any, place: str) -> None:
        start = array.__array_interface__["data"][0]
        found.append((start, start + array.nbytes, place))

    acts = step.model._buffers(*step.tokens.shape)
    add(acts.logits, "head")
    for layer, block in enumerate(acts.blocks):
        for array in (block.qkv, block.preactivation):
            if array is not None:
                add(array, f"layer {layer + 1}")
    for parameters in (step.weights, step.gradients):
        for name, view in parameters.items():
            if name.startswith("h."):
                add(view, f"layer {int(name.split('.')[1]) + 1}")
            elif name == "wpe.weight":
                add(view, "embeddings")
            elif name.startswith("ln_f"):
                add(view, "final norm")
    add(acts.embedded, "embeddings")
    return found


def _place(arguments: dict[str, Any], homes: Sequence[tuple[int, int, str]]) -> str:
    """The place of the first argument that has one; earlier homes go first, for the embedded tokens are also the input
    of the first layer."""
    starts = [
        array.__array_interface__["data"][0] for array in arguments.values() if isinstance(array, np.ndarray)
    ]
    for first, last, place in homes:
        if any(first <= start < last for start in starts):
            return place
    return "dropout"


def profile_step(config: ProfileStepConfig, progress: Progress | None = None) -> StepProfile:
    """Take a step apart. Raises UserError for what cannot run here."""
    progress = progress or Progress()
    size = StepSize.of(config.model(), config.sequences())
    refuse_too_large(training_bytes(size.model, size.batch, (config.backend,)), "Training this model")
    progress.stage("First step, with compilation")
    backend = open_backend(config.backend, config.threads)
    step = TrainingStep(size, backend)
    plain = Stopwatch(step.run)
    noting = RecordedStep(step)
    noted = Stopwatch(noting.run)
    progress.stage("Timing with and without the instruments, in turns")
    plain.warm_up()
    noted.warm_up()
    # the difference is small, so the turns are short; a sample is one step
    often = config.seconds / 2 / (TURN_STEPS * Summary.of(plain.turn()).median / 1e9)
    rules = Rules(turns=max(5, min(200, round(often))), seconds=config.seconds / 2)
    for watch in (plain, noted):
        watch.rules, watch.calls = rules, 1
    noting.recorded.clear()
    times = take_turns([plain, noted])
    return _parts(size, describe_backend(backend), noting, times[0], times[1], plain.first_s)


def _parts(
    size: StepSize, kernels: str, noting: RecordedStep, plain: Summary, noted: Summary, first_s: float
) -> StepProfile:
    recorded = noting.recorded
    if {len(times) for times in recorded} != {2 * len(noting.calls) + 2}:
        raise RuntimeError("the steps did not all make the same calls")
    wholes = sorted(times[-1] - times[0] for times in recorded)
    low, high = percentile(wholes, 0.4), percentile(wholes, 0.6)
    middle = np.array([times for times in recorded if low <= times[-1] - times[0] <= high], np.int64)
    spans = np.diff(middle, axis=1).mean(axis=0)  # gap, call, gap, call, ..., gap
    return StepProfile(
        size, kernels, noting.calls, tuple(map(float, spans[1::2])), tuple(map(float, spans[0::2])),
        float(spans.sum()), plain, noted, first_s, len(recorded), tuple(recorded)[-TRACED:],
    )  # fmt: skip
