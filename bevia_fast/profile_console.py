"""A step taken apart, as tables, as JSON and as a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from .bench_config import ProfileStepConfig
from .bench_console import progress
from .bench_results import check_writable, cpu_name, today, write_json
from .bench_tables import WideConsole, make_table, number
from .errors import UserError
from .profile_bounds import Bound
from .profile_steps import NARROW, Call, StepProfile
from .profile_steps import profile_step as take_apart
from .trace import trace_events

PYTHON = "Python between kernels"


def profile_step(config: ProfileStepConfig) -> int:
    """Measure, print, write."""
    check_writable(config.trace, config.json)
    with progress() as shown:
        profile = take_apart(config, shown)
    console, size = WideConsole(), profile.size
    title = (f"A training step by kernel: ctx {size.ctx}, dim {size.dim}, layers {size.layers}, heads {size.heads}, "
             f"batch {size.batch}, vocab {size.vocab}, {size.dtype}; {profile.kernels}")  # fmt: skip
    rows = []
    for row in by_kernel(profile):
        figures = [
            str(row["launches"]), *map(number, (row["gflops"], row["gbytes_per_s"], row["bound_ms"])), row["bound"],
            f"{row['of_bound']:.0%}",
        ] if row["launches"] else [""] * 6  # fmt: skip
        rows.append([row["kernel"], row["weight"], figures[0], number(row["ms"]), f"{row['share']:.1%}", *figures[1:]])
    bound = Bound.sum(profile.bounds).ns
    rows.append(["all parts", "", str(len(profile.calls)), number(profile.whole / 1e6), "100.0%", "", "",
                 number(bound / 1e6), "", f"{bound / profile.whole:.0%}"])  # fmt: skip
    columns = ["launches", "ms", "share", "GFLOP/s", "GB/s", "bound ms", "by", "of bound"]
    console.show(make_table(title, ["kernel", "weight"], columns, rows))
    rows = [
        [row["place"], *(number(row[phase]) if row[phase] else "" for phase in ("forward", "backward")),
         number(row["ms"]), f"{row['share']:.1%}"]
        for row in by_place(profile)
    ]  # fmt: skip
    console.show(make_table("The same by layer", ["layer"], ["forward ms", "backward ms", "ms", "share"], rows))
    for line in notes(profile):
        console.print(line, soft_wrap=True)
    if config.json:
        write_json(config.json, as_object(profile))
    if config.trace:
        try:
            with open(config.trace, "w", encoding="utf-8") as file:
                json.dump(trace_events(profile), file)
        except OSError as error:
            raise UserError(f"Cannot write {config.trace}: {error.strerror}.") from None
        console.print(f"{config.trace}: open it at https://ui.perfetto.dev or https://speedscope.app", soft_wrap=True)
    return 0


def notes(profile: StepProfile) -> list[str]:
    """What the columns are held against, and how far the figures can be trusted."""
    plain, noted = profile.plain.median / 1e6, profile.noted.median / 1e6
    slowdown, coverage = profile.slowdown, profile.coverage
    found = [
        "Bound: what the calls take at least: their arithmetic at the "
        f"{profile.peak_gflops:.0f} GFLOP/s that the vector units reached in this run, or their bytes at the rate of a "
        "triad over as many, in cache or in memory, whichever is longer.",
        f"{profile.steps} steps were taken apart, each beside one without the instruments: {number(noted)} and "
        f"{number(plain)} ms. Intervals are those of 95 %.",
        f"The parts add up to {profile.covered.median:.2%} of the same steps seen from outside, and to "
        f"{coverage.median:.1%} of those without the instruments ({coverage.low:.1%} to {coverage.high:.1%}).",
        f"Measuring slows a step by {slowdown.median - 1:+.1%} ({slowdown.low - 1:+.1%} to {slowdown.high - 1:+.1%}); "
        f"by themselves, the instruments cost {profile.instruments:.2%} of a step.",
        f"The first step, with compilation, took {profile.first_s:.1f} s and does not count.",
    ]
    if slowdown.width > NARROW:
        found.append("The machine was too busy for narrower intervals: measure when it is not, or with more --seconds.")
    return found


@dataclass
class Sums:
    """Of some calls."""

    launches: int = 0
    ns: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    bounds: list[Bound] = field(default_factory=list)


def _sums(profile: StepProfile, key: Callable[[Call], Any]) -> dict[Any, Sums]:
    """Of the calls with the same key."""
    found: dict[Any, Sums] = {}
    for call, duration, bound in zip(profile.calls, profile.durations, profile.bounds, strict=True):
        sums = found.setdefault(key(call), Sums())
        sums.launches += 1
        sums.ns += duration
        sums.flops += call.cost.flops
        sums.bytes += call.cost.bytes
        sums.bounds.append(bound)
    return found


def direction(call: Call) -> str:
    """The head goes forward and back at once."""
    back = call.phase == "backward" or (call.phase == "head" and call.operation.endswith("_backward"))
    return "backward" if back else "forward"


def by_kernel(profile: StepProfile) -> list[dict[str, Any]]:
    """A row for each kernel, and for each of the weights that it is called with, the longest first, then one for
    Python's time between them; the shares sum to 1. `of_bound`: the least time as a share of the time it took."""
    rows = []
    for (name, weight), sums in _sums(profile, lambda call: (call.operation, call.weight)).items():
        bound = Bound.sum(sums.bounds)
        rows.append({
            "kernel": name, "weight": weight, "launches": sums.launches, "ms": sums.ns / 1e6,
            "share": sums.ns / profile.whole, "gflops": sums.flops / sums.ns, "gbytes_per_s": sums.bytes / sums.ns,
            "bound_ms": bound.ns / 1e6, "bound": bound.by, "of_bound": bound.ns / sums.ns,
        })  # fmt: skip
    rows.sort(key=lambda row: -row["ms"])
    python = sum(profile.gaps)
    return [*rows, {"kernel": PYTHON, "weight": "", "launches": 0, "ms": python / 1e6, "share": python / profile.whole,
                    "gflops": 0.0, "gbytes_per_s": 0.0, "bound_ms": 0.0, "bound": "", "of_bound": 0.0}]  # fmt: skip


def by_place(profile: StepProfile) -> list[dict[str, Any]]:
    """A row for each layer, the embeddings, the head and the optimiser, in the order of the forward pass."""
    sums = _sums(profile, lambda call: (call.place, direction(call)))
    rows = []
    for place in dict.fromkeys(place for place, _ in sums):
        phases = {phase: sums[place, phase].ns / 1e6 if (place, phase) in sums else 0.0
                  for phase in ("forward", "backward")}  # fmt: skip
        total = sum(phases.values())
        if place == "optimizer":  # neither
            phases = dict.fromkeys(phases, 0.0)
        rows.append({"place": place, **phases, "ms": total, "share": total * 1e6 / profile.whole})
    python = sum(profile.gaps)
    return [*rows, {"place": PYTHON, "forward": 0.0, "backward": 0.0, "ms": python / 1e6,
                    "share": python / profile.whole}]  # fmt: skip


def as_object(profile: StepProfile) -> dict[str, Any]:
    """All figures, for a program."""
    return {
        **asdict(profile.size), "kernels_used": profile.kernels, "steps": profile.steps,
        "whole_ms": profile.whole / 1e6, "bound_ms": Bound.sum(profile.bounds).ns / 1e6,
        "peak_gflops": profile.peak_gflops,
        "plain_ms_median": profile.plain.median / 1e6, "noted_ms_median": profile.noted.median / 1e6,
        "slowdown": profile.slowdown.median - 1, "slowdown_low": profile.slowdown.low - 1,
        "slowdown_high": profile.slowdown.high - 1, "instruments": profile.instruments,
        "coverage": profile.coverage.median, "coverage_low": profile.coverage.low,
        "coverage_high": profile.coverage.high, "covered": profile.covered.median, "first_step_s": profile.first_s,
        "by_kernel": by_kernel(profile), "by_layer": by_place(profile), "cpu": cpu_name(), "date": today(),
    }  # fmt: skip
