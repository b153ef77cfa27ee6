"""Break down a training step: when each kernel begins and ends, and how long Python takes in between.

The model gets a backend whose functions read the clock before and after each call. The layer and phase of a call are
determined once, from the arrays passed to it. Timed steps record only times, because every step makes the same calls in
the same order.
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

KEPT = 2000  # the most steps whose times are kept
LEAST = 8  # the fewest steps that are recorded
NARROW = 0.01  # measure until half the confidence interval of the slowdown is narrower than this,
PATIENCE = 4  # or until this many times the seconds asked for have passed
TRACED = 3  # steps in a trace


@dataclass(frozen=True)
class Call:
    """One kernel call of a step.

    `phase`: "forward", "head", "backward" or "update". `place`: "embeddings", "layer 3", "final norm", "head" or
    "optimizer". `weight`: the name within the layer of the weights that the call uses, such as "attn.c_proj"; "" if it
    uses none or all.
    """

    operation: str
    phase: str
    place: str
    weight: str
    cost: Cost


@dataclass(frozen=True)
class StepProfile:
    """The parts of a step, in nanoseconds.

    They are means over the steps near the median, from the 40th to the 60th percentile of the total, because medians of
    the parts would not add up. `durations` belong to `calls`. `gaps` has one more element: Python's time before each
    call and after the last. Together they add up to `whole`. `bounds` are the least times of the calls, from
    `peak_gflops` and the bandwidths of this run. The ratios compare recorded steps with neighboring steps without the
    instruments.
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
    noted: Summary  # recorded steps, timed from outside
    covered: Ratio  # sum of the parts of a step / the same step timed from outside
    coverage: Ratio  # sum of the parts of a step / a step without the instruments
    slowdown: Ratio  # a step with the instruments / a step without
    instruments: float  # the time of the instruments alone, as a share of a step
    first_s: float
    steps: int
    recorded: tuple[tuple[int, ...], ...]  # further steps, for a trace: begin, each call's begin and end, end
    recompute: bool = False


class RecordedStep:
    """A step that records when its calls begin and end."""

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.recorder = Recorder(step.backend)
        self.plain = step.backend
        self.recorded: deque[tuple[int, ...]] = deque(maxlen=KEPT)
        self.calls = self._label()

    def run(self) -> None:
        """Run and record one step."""
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
        """Return the calls of a step with their places and phases.

        The place follows from the parameters that a call uses. A call without any, such as attention, has the same
        place as the call before it. The head consists of everything from its first call to its last.
        """
        listener, step = Listener(self.plain), self.step
        self._run_with(listener)
        owners = _parameter_ranges(step)
        found: list[tuple[str, str, str, Cost]] = []
        place = "embeddings"
        for operation, args, kwargs in listener.called:
            entry = OPERATIONS[operation]
            bound = entry.signature.bind(*args, **kwargs).arguments
            owner, weight = _owner(bound, owners)
            place = owner or place
            found.append((operation, place, weight if "weight" in bound else "", entry.cost(**bound)))
        updates = self._updates()
        # each of the batches of a step makes the same calls
        batch = (len(found) - updates) // step.size.accumulate
        heads = [number for number, (_, place, *_) in enumerate(found[:batch]) if place == "head"]
        calls = []
        for number, (operation, place, weight, cost) in enumerate(found):
            phase = "forward" if number % batch < heads[0] else "head" if number % batch <= heads[-1] else "backward"
            if number >= len(found) - updates:
                phase, place = "update", "optimizer"
            calls.append(Call(operation, phase, place, weight, cost))
        return tuple(calls)

    def _updates(self) -> int:
        """Return the number of calls that an update makes."""
        listener = Listener(self.plain)
        self.step.backend = cast(Backend, listener)
        self.step.update()
        self.step.backend = self.plain
        return len(listener.called)


def _parameter_ranges(step: TrainingStep) -> list[tuple[int, int, str, str]]:
    """Return (first byte, end, place, name in that place) of each parameter and of its gradient."""
    found = []
    for parameters in (step.weights, step.gradients):
        for name, view in parameters.items():
            place = "final norm" if name.startswith("ln_f") else "embeddings" if name == "wpe.weight" else "head"
            weight = name.rpartition(".")[0]
            if name.startswith("h."):
                _, layer, weight = weight.split(".", 2)
                place = f"layer {layer}"  # counted as in the names of the weights
            start = view.__array_interface__["data"][0]
            found.append((start, start + view.nbytes, place, weight))
    return sorted(found, key=lambda owner: owner[2] == "head")  # the head last: it shares a table with the embeddings


def _owner(arguments: dict[str, Any], ranges: Sequence[tuple[int, int, str, str]]) -> tuple[str, str]:
    """Return the place of the parameters among the arguments, and their name there; "" if there are none."""
    starts = [
        array.__array_interface__["data"][0] for array in arguments.values() if isinstance(array, np.ndarray)
    ]
    for first, end, place, weight in ranges:
        if any(first <= start < end for start in starts):
            return place, weight
    return "", ""


def profile_step(config: ProfileStepConfig, progress: Progress | None = None) -> StepProfile:
    """Break down a training step. Raises UserError for what cannot run here."""
    progress = progress or Progress()
    options = config.step()
    size = StepSize.of(options.model, options.batch, options.accumulate, options.optimizer)
    memory = training_memory(
        size.model, size.batch, config.backend, recompute=options.recompute, optimizer=options.optimizer
    )
    refuse_too_large(memory.total, "Training this model")
    progress.stage("First step, with compilation")
    backend = open_backend(config.backend, config.threads)
    step = TrainingStep(size, backend, recompute=options.recompute)
    plain = Stopwatch(step.run)
    recording = RecordedStep(step)
    progress.stage("Warming up")
    plain.warm_up()
    for _ in range(NOT_PLAYED):
        recording.run()
    recording.recorded.clear()
    progress.stage("Timing with and without the instruments, in turns")
    without, outside, inside = _in_turns(step, recording, config.seconds, progress)
    kernels = describe_backend(backend, size.precision)
    profile = _average(size, kernels, recording, without, outside, inside, plain.first_s)
    for _ in range(TRACED):  # without other steps in between, as in training
        recording.run()
    progress.stage("Measuring the limits of this machine")
    with Competitor("peak", config.threads or default_threads()) as probe:
        roofs = Roofs(probe, size.roof, cold=False)
        bounds = measure_bounds([call.cost for call in recording.calls], roofs, progress)
    recorded = tuple(recording.recorded)[-TRACED:]
    return replace(
        profile, bounds=bounds, peak_gflops=roofs.gflops, recorded=recorded, recompute=options.recompute
    )


def _in_turns(
    step: TrainingStep, recording: RecordedStep, seconds: float, progress: Progress
) -> tuple[list[int], list[int], list[int]]:
    """Time steps with and without the instruments, in the order A B B A.

    Returns three lists of nanoseconds: of steps without the instruments; of recorded steps, timed from outside; and of
    the same steps from the begin to the end of their parts. Measures for `seconds`, or on a busy machine up to PATIENCE
    times as long, until the ratio is known well enough.
    """
    without: list[int] = []
    outside: list[int] = []
    inside: list[int] = []
    began = time.perf_counter()
    while True:
        for record in ((False, True), (True, False))[len(without) % 2]:
            before = clock()
            (recording if record else step).run()
            (outside if record else without).append(clock() - before)
        inside.append(recording.recorded[-1][-1] - recording.recorded[-1][0])
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


def _average(
    size: StepSize, kernels: str, recording: RecordedStep, without: list[int], outside: list[int], inside: list[int],
    first_s: float,
) -> StepProfile:  # fmt: skip
    """Return the profile of a step, still without its bounds and trace."""
    recorded = recording.recorded
    if {len(times) for times in recorded} != {2 * len(recording.calls) + 2}:
        raise RuntimeError("the steps did not all make the same calls")
    wholes = sorted(times[-1] - times[0] for times in recorded)
    low, high = percentile(wholes, 0.4), percentile(wholes, 0.6)
    middle = np.array([times for times in recorded if low <= times[-1] - times[0] <= high], np.int64)
    spans = np.diff(middle, axis=1).mean(axis=0)  # gap, call, gap, call, ..., gap
    plain = Summary.of(without)
    return StepProfile(
        size, kernels, recording.calls, tuple(map(float, spans[1::2])), tuple(map(float, spans[0::2])), (), 0.0,
        float(spans.sum()), plain, Summary.of(outside), _ratio(inside, outside), _ratio(inside, without),
        _ratio(outside, without), instruments_ns() * len(recording.calls) / plain.median, first_s, len(without), (),
    )  # fmt: skip
