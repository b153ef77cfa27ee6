"""Sum up the profile of a step: by kernel, by layer, and as one object for a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..machine import cpu_name
from .results import today
from .roofline import Bound
from .step_profile import Call, StepProfile

PYTHON = "Python between kernels"


@dataclass
class Sums:
    """Totals over some calls."""

    launches: int = 0
    ns: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    bounds: list[Bound] = field(default_factory=list)


def _sums(profile: StepProfile, key: Callable[[Call], Any]) -> dict[Any, Sums]:
    """Return the totals over the calls with the same key."""
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
    """Return "forward" or "backward". In the head, where both alternate, the name of the operation decides."""
    back = call.phase == "backward" or (call.phase == "head" and call.operation.endswith("_backward"))
    return "backward" if back else "forward"


def by_kernel(profile: StepProfile) -> list[dict[str, Any]]:
    """Return a row for each kernel and weight that it is called with, longest time first, and then a row for Python's
    time between the calls. The shares sum to 1. `of_bound` is the least possible time as a share of the measured time.
    """
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
    """Return a row for each layer, the embeddings, the head and the optimizer, in the order of the forward pass, and
    then a row for Python's time between the calls."""
    sums = _sums(profile, lambda call: (call.place, direction(call)))
    rows = []
    for place in dict.fromkeys(place for place, _ in sums):
        phases = {phase: sums[place, phase].ns / 1e6 if (place, phase) in sums else 0.0
                  for phase in ("forward", "backward")}  # fmt: skip
        total = sum(phases.values())
        if place == "optimizer":  # neither forward nor backward
            phases = dict.fromkeys(phases, 0.0)
        rows.append({"place": place, **phases, "ms": total, "share": total * 1e6 / profile.whole})
    python = sum(profile.gaps)
    return [*rows, {"place": PYTHON, "forward": 0.0, "backward": 0.0, "ms": python / 1e6,
                    "share": python / profile.whole}]  # fmt: skip


def as_object(profile: StepProfile) -> dict[str, Any]:
    """Return all figures as a dictionary for JSON."""
    return {
        **asdict(profile.size), "variant": profile.size.variant, "recompute": profile.recompute,
        "kernels_used": profile.kernels, "steps": profile.steps,
        "whole_ms": profile.whole / 1e6, "bound_ms": Bound.sum(profile.bounds).ns / 1e6,
        "peak_gflops": profile.peak_gflops,
        "plain_ms_median": profile.plain.median / 1e6, "noted_ms_median": profile.noted.median / 1e6,
        "slowdown": profile.slowdown.median - 1, "slowdown_low": profile.slowdown.low - 1,
        "slowdown_high": profile.slowdown.high - 1, "instruments": profile.instruments,
        "coverage": profile.coverage.median, "coverage_low": profile.coverage.low,
        "coverage_high": profile.coverage.high, "covered": profile.covered.median, "first_step_s": profile.first_s,
        "by_kernel": by_kernel(profile), "by_layer": by_place(profile), "cpu": cpu_name(), "date": today(),
    }  # fmt: skip
