"""A profile as a trace in the Trace Event format, which Perfetto, speedscope and chrome://tracing open.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Each span is one complete
event ("ph": "X") with its start `ts` and duration `dur` in microseconds. Spans of a thread have to lie within each
other or apart; here a step holds its phases, a phase its layers, a layer its kernels, each strictly within.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .step_profile import Call, StepProfile

DEPTH = 3  # levels around a kernel: step, phase, layer


def trace_events(profile: StepProfile) -> dict[str, Any]:
    """The whole file, as an object for `json.dump`."""
    size = profile.size
    process = f"bevia-fast, {profile.kernels}"
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"name": process}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "training steps"}},
    ]
    origin = profile.recorded[0][0]
    for index, times in enumerate(profile.recorded):
        for name, category, begin, end, arguments in spans(profile.calls, times, index + 1):
            event = {"ph": "X", "name": name, "cat": category, "pid": 1, "tid": 1, "ts": (begin - origin) / 1000,
                     "dur": (end - begin) / 1000}  # fmt: skip
            # speedscope takes spans for the same only if their arguments are: so none that is another each time
            events.append(event | {"args": arguments} if arguments else event)
    other = {"ctx": size.ctx, "dim": size.dim, "layers": size.layers, "heads": size.heads, "batch": size.batch}
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}


def spans(
    calls: Sequence[Call], times: Sequence[int], number: int
) -> Iterator[tuple[str, str, int, int, dict[str, Any]]]:
    """(name, category, begin, end, arguments) of one step, outer ones first. `times`: nanoseconds of the step's begin,
    each call's begin and end, and the step's end."""
    yield f"step {number}", "step", times[0], times[-1], {}
    numbered = list(enumerate(calls))
    for phase, in_phase in groupby(numbered, key=lambda item: item[1].phase):
        phase_calls = list(in_phase)
        yield (phase, "phase", *_around(times, phase_calls[0][0], phase_calls[-1][0], 1), {})
        for place, in_place in groupby(phase_calls, key=lambda item: item[1].place):
            placed = list(in_place)
            yield (place, "layer", *_around(times, placed[0][0], placed[-1][0], 2), {})
            for index, call in placed:
                begin, end = times[1 + 2 * index], times[2 + 2 * index]
                arguments = {"MFLOP": round(call.cost.flops / 1e6, 3), "MB": round(call.cost.bytes / 1e6, 3)}
                yield call.operation, "kernel", begin, end, arguments


def _around(times: Sequence[int], first: int, last: int, level: int) -> tuple[int, int]:
    """Begin and end of a span around calls `first` to `last`: within the gaps before and after them, which Python's
    time between calls leaves, an outer level further out. Levels so never share an end."""
    steps, out = 2 * DEPTH + 1, DEPTH - level
    before, begin = times[2 * first], times[1 + 2 * first]
    end, after = times[2 + 2 * last], times[3 + 2 * last]
    return begin - (begin - before) * out // steps, end + (after - end) * out // steps
