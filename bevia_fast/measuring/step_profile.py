"""One training step taken apart: when each kernel began and ended, and what lay between.

The backend handed to the model is replaced by one whose functions look at the clock before and after the call. What a
call belongs to, its layer and phase, is found out once, from the arrays it is given; a timed step only notes times, for
every step makes the same calls in the same order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..backends import default_threads, describe_backend, open_backend
from ..kernels.contract import OPERATIONS, Backend, Cost
from ..kernels.instruments import Listener, Recorder, instruments_ns
from ..kernels.tape import NOT_PLAYED
from ..machine import refuse_too_large
from ..planning.memory import training_memory
from ..reporter import Progress
from .competitor import Competitor
from .options import ProfileStepConfig
from .roofline import Bound, Roofs, measure_bounds
from .stopwatch import Ratio, Stopwatch, Summary, clock, percentile
from .training_step import StepSize, TrainingStep

KEPT = 2000  # steps whose times are kept, at most
LEAST = 8  # steps to be taken apart
NARROW = 0.01  # how well the cost of measuring is to be known, before the time is over
PATIENCE = 4  # times the seconds asked for, at most, until it is
TRACED = 3  # steps that a trace shows


@dataclass(frozen=True)
class Call:
    """One launch of a kernel in a step. `place`: "layer 3", "embeddings", "head" or "optimizer". `weight`: the name of
    the layer's weights that it works with, such as "attn.c_proj"; "" for none or for all."""

    operation: str
    phase: str
    place: str
    weight: str
    cost: Cost


@dataclass(frozen=True)
class StepProfile:
    """The parts of a step, in nanoseconds: means over the steps whose time lies near the median, from the 40th
    to the 60th percentile, for medians of parts would not add up.

    `durations` belong to `calls`; `gaps` is one longer: Python's time before each call and after the last. Together
    they are `whole`. `bounds` are what the calls take at least, by the `peak_gflops` and the bandwidths of this run.
    The rest are ratios, of steps that were taken apart and steps without the instruments beside them.
    """

    size: StepSize
    kernels: str
    calls: tuple[Call, ...]
    durations: tuple[float, ...]
    gaps: tuple[float, ...]
    bounds: tuple[Bound, ...]
    peak_gflops: float
    whole: float
    plain: Summary  # steps without the instruments
    noted: Summary  # steps with them, seen from outside
    covered: Ratio  # the parts of a step, as a share of the same step seen from outside
    coverage: Ratio  # the parts of a step, as a share of one without the instruments
    slowdown: Ratio  # a step with the instruments, as a multiple of one without
    instruments: float  # what the instruments cost by themselves, as a share of a step
    first_s: float
    steps: int
    recorded: tuple[tuple[int, ...], ...]  # some steps more: begin, each call's begin and end, end; for a trace


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
        """What each call of a step belongs to: found from the parameters that it works with, or else, as of attention,
        from the call before it. The head is what lies between its first call and its last."""
        listener, step = Listener(self.plain), self.step
        self._run_with(listener)
        homes = _homes(step)
        found: list[tuple[str, str, str, Cost]] = []
        place = "embeddings"
        for operation, args, kwargs in listener.called:
            entry = OPERATIONS[operation]
            bound = entry.signature.bind(*args, **kwargs).arguments
            home, weight = _home(bound, homes)
            place = home or place
            found.append((operation, place, weight if "weight" in bound else "", entry.cost(**bound)))
        updates = self._updates()
        heads = [number for number, (_, place, *_) in enumerate(found[:-updates]) if place == "head"]
        calls = []
        for number, (operation, place, weight, cost) in enumerate(found):
            phase = "forward" if number < heads[0] else "head" if number <= heads[-1] else "backward"
            if number >= len(found) - updates:
                phase, place = "update", "optimizer"
            calls.append(Call(operation, phase, place, weight, cost))
        return tuple(calls)

    def _updates(self) -> int:
        """How many calls an update makes."""
        listener = Listener(self.plain)
        self.step.backend = cast(Backend, listener)
        self.step.update()
        self.step.backend = self.plain
        return len(listener.called)


def _homes(step: TrainingStep) -> list[tuple[int, int, str, str]]:
    """(first byte, last byte, place, name in that place) of the parameters and their gradients."""
    found = []
    for parameters in (step.weights, step.gradients):
        for name, view in parameters.items():
            place = "final norm" if name.startswith("ln_f") else "embeddings" if name == "wpe.weight" else "head"
            weight = name.rpartition(".")[0]
            if name.startswith("h."):
                _, layer, weight = weight.split(".", 2)
                place = f"layer {int(layer) + 1}"
            start = view.__array_interface__["data"][0]
            found.append((start, start + view.nbytes, place, weight))
    return sorted(found, key=lambda home: home[2] == "head")  # last: the embeddings and the head share a table


def _home(arguments: dict[str, Any], homes: Sequence[tuple[int, int, str, str]]) -> tuple[str, str]:
    """The place of the parameters among the arguments, and their name there; "" if there are none."""
    starts = [
        array.__array_interface__["data"][0] for array in arguments.values() if isinstance(array, np.ndarray)
    ]
    for first, last, place, weight in homes:
        if any(first <= start < last for start in starts):
            return place, weight
    return "", ""


def profile_step(config: ProfileStepConfig, progress: Progress | None = None) -> StepProfile:
    """Take a step apart. Raises UserError for what cannot run here."""
    progress = progress or Progress()
    size = StepSize.of(config.model(), config.sequences())
    refuse_too_large(training_memory(size.model, size.batch, config.backend).total, "Training this model")
    progress.stage("First step, with compilation")
    backend = open_backend(config.backend, config.threads)
    step = TrainingStep(size, backend)
    plain = Stopwatch(step.run)
    noting = RecordedStep(step)
    progress.stage("Warming up")
    plain.warm_up()
    for _ in range(NOT_PLAYED):
        noting.run()
    noting.recorded.clear()
    progress.stage("Timing with and without the instruments, in turns")
    without, outside, inside = _in_turns(step, noting, config.seconds, progress)
    profile = _parts(size, describe_backend(backend), noting, without, outside, inside, plain.first_s)
    for _ in range(TRACED):  # one after the other, as in training
        noting.run()
    progress.stage("Measuring what this machine can do")
    with Competitor("peak", config.threads or default_threads()) as probe:
        roofs = Roofs(probe, size.dtype, cold=False)
        bounds = measure_bounds([call.cost for call in noting.calls], roofs, progress)
    recorded = tuple(noting.recorded)[-TRACED:]
    return replace(profile, bounds=bounds, peak_gflops=roofs.gflops, recorded=recorded)


def _in_turns(
    step: TrainingStep, noting: RecordedStep, seconds: float, progress: Progress
) -> tuple[list[int], list[int], list[int]]:
    """Times of steps without the instruments; with them, seen from outside; and of the same ones from begin to end of
    their parts. A step of the one kind, a step of the other, and the next two the other way round: A B B A. For as many
    seconds as are asked for, and more, but not for ever, if the machine is so busy that the ratio is not known yet.
    """
    without: list[int] = []
    outside: list[int] = []
    inside: list[int] = []
    began = time.perf_counter()
    while True:
        for noted in ((False, True), (True, False))[len(without) % 2]:
            before = clock()
            (noting if noted else step).run()
            (outside if noted else without).append(clock() - before)
        inside.append(noting.recorded[-1][-1] - noting.recorded[-1][0])
        passed, pairs = time.perf_counter() - began, len(without)
        progress.advance(min(passed, PATIENCE * seconds), PATIENCE * seconds, f"{pairs} steps")
        if pairs >= LEAST and passed > seconds:
            if passed > PATIENCE * seconds:
                break
            if pairs % 8 == 0 and _ratio(outside, without).width < NARROW:
                break
    return without, outside, inside


def _ratio(times: Sequence[int], others: Sequence[int]) -> Ratio:
    return Ratio.of([one / other for one, other in zip(times, others, strict=True)])


def _parts(
    size: StepSize, kernels: str, noting: RecordedStep, without: list[int], outside: list[int], inside: list[int],
    first_s: float,
) -> StepProfile:  # fmt: skip
    recorded = noting.recorded
    if {len(times) for times in recorded} != {2 * len(noting.calls) + 2}:
        raise RuntimeError("the steps did not all make the same calls")
    wholes = sorted(times[-1] - times[0] for times in recorded)
    low, high = percentile(wholes, 0.4), percentile(wholes, 0.6)
    middle = np.array([times for times in recorded if low <= times[-1] - times[0] <= high], np.int64)
    spans = np.diff(middle, axis=1).mean(axis=0)  # gap, call, gap, call, ..., gap
    plain = Summary.of(without)
    return StepProfile(
        size, kernels, noting.calls, tuple(map(float, spans[1::2])), tuple(map(float, spans[0::2])), (), 0.0,
        float(spans.sum()), plain, Summary.of(outside), _ratio(inside, outside), _ratio(inside, without),
        _ratio(outside, without), instruments_ns() * len(noting.calls) / plain.median, first_s, len(without), (),
    )  # fmt: skip
