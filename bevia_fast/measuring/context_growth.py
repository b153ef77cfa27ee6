"""Memory and time of a training step as the context grows, with each point in its own process: `bench contexts`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import default_threads
from ..errors import ConfigError
from ..machine import available_bytes, readable
from ..model.parameters import Parameters
from ..planning.memory import training_memory
from ..reporter import Progress
from .competitor import Competitor, CompetitorError, as_request
from .options import BenchContextsConfig
from .precheck import RECOMPUTE, Agreement, Key, is_peer, start
from .results import StepReport
from .step_times import step_result
from .stopwatch import Rules, Summary
from .training_step import StepSize
from .turns import Machine, Reading

ATTEMPTS = 3  # at most, to measure a point while the machine is not busy
WARM = 64  # context of a step before memory is measured, so that libraries and kernels are loaded


@dataclass(frozen=True)
class Point:
    """The measurement at one context. `facts`: as in `step_times.step_result`."""

    key: Key
    size: StepSize
    times: Summary
    first_s: float
    facts: dict[str, Any]


def bench_contexts(config: BenchContextsConfig, progress: Progress | None = None) -> StepReport:
    """Measure all points, after checking that all competitors agree at the shortest context, or at the shortest that is
    longer than the window where they have one.

    If a point would take too much memory or time, that point and the longer ones are left out. Ctrl-C stops the
    measurement and keeps the points so far. Raises UserError for what cannot run here, StoppedRun if two competitors
    disagree.
    """
    progress, report, points = progress or Progress(), StepReport(), list[Point]()
    threads = config.threads[0] if config.threads else default_threads()
    ways = _ways(config)
    sizes = [StepSize.of(config.at(ctx), config.batch) for ctx in config.contexts()]
    machine, busy = Machine(), 0

    def read() -> Reading:
        machine.update(now := Reading.take(probe, config.dtype))
        return now

    def measure_steadily(key: Key, size: StepSize) -> Point:
        """Measure a point while the machine is not busy; if it always is, return the fastest of the attempts."""
        nonlocal busy
        found: list[Point] = []
        for _ in range(ATTEMPTS):
            before = read()
            found.append(_measure(key, size, config))
            if machine.steady((before, read())):
                return found[-1]
        busy += 1
        return min(found, key=lambda point: point.times.median)

    def leave_out(key: Key, size: StepSize, reason: str) -> None:
        report.notes.append(f"Left out {key[0]} from ctx {size.ctx:,} on: {reason}.")

    with Competitor("peak", threads) as probe:
        try:
            progress.stage("Measuring the peak of the vector units")
            read()  # refuses more threads than the machine has
            keys = [(name, threads) for name in ways]
            for key in list(keys):
                if reason := _reason_to_skip(key, ways[key[0]].applied(sizes[0]), None, config.limit):
                    leave_out(key, sizes[0], reason)
                    keys.remove(key)
            groups, keys, checked = _by_window(keys, ways), [], list[str]()
            for window, group in groups.items():
                keys += _check_agreement(group, window.checked(sizes), config, report, progress)
                checked.append(report.checked)
            report.checked = "; ".join(checked)
            for number, key in enumerate(keys):
                last: Point | None = None
                for place, size in enumerate(map(ways[key[0]].applied, sizes)):
                    progress.part(number * len(sizes) + place, len(keys) * len(sizes), f"{key[0]}, ctx {size.ctx:,}")
                    reason = _reason_to_skip(key, size, last, config.limit)
                    if not reason:
                        try:
                            last = measure_steadily(key, size)
                            points.append(last)
                            continue
                        except CompetitorError as error:
                            reason = str(error).rstrip(".")
                    leave_out(key, size, reason)
                    break
        except KeyboardInterrupt:
            if not points:
                raise
            report.interrupted = True
    if not points:
        raise ConfigError(f"Nothing could be measured. {' '.join(report.notes)}")
    if busy:
        report.notes.append(
            f"Warning: the machine was busy in every attempt at {busy} of {len(points)} points; their timings are "
            "unreliable."
        )
    report.results = [
        step_result(one.key, one.size, one.times, machine.peak(threads), one.first_s, one.facts) for one in points
    ]
    return report


@dataclass(frozen=True)
class Window:
    """The window that a competitor's attention has; 0: none."""

    size: int = 0
    layers: Any = "alternate"

    def applied(self, size: StepSize) -> StepSize:
        return replace(size, window=self.size, window_layers=self.layers)

    def checked(self, sizes: list[StepSize]) -> StepSize:
        """Return the shortest of the sizes at which the window hides something, or the longest."""
        return self.applied(next((size for size in sizes if size.ctx > self.size), sizes[-1]))


def _ways(config: BenchContextsConfig) -> dict[str, Window]:
    """Return the window of each competitor, by the competitor's name."""
    found: dict[str, Window] = {}
    for backend in config.backend:
        found[backend] = Window()
        if backend == "numba":
            found[RECOMPUTE] = Window()
            if config.window:
                found[f"numba --window {config.window}"] = Window(config.window)
                found[f"numba --window {config.window} --window-layers all"] = Window(config.window, "all")
    return found | {name: Window() for name in config.peers()}


def _by_window(keys: list[Key], ways: dict[str, Window]) -> dict[Window, list[Key]]:
    """Group the competitors that compute the same function."""
    found: dict[Window, list[Key]] = {}
    for key in keys:
        found.setdefault(ways[key[0]], []).append(key)
    return found


def _check_agreement(
    keys: list[Key], size: StepSize, config: BenchContextsConfig, report: StepReport, progress: Progress
) -> list[Key]:
    """Compare all competitors with NumPy, and return those that run here."""
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder:
        agreement = Agreement(size, keys, Path(folder), available_bytes(), report, progress)
        agreement.run_reference(keys[0][1])
        for key in keys:
            with start(key, config.torch_python) as one:
                one.ask("load")
                agreement.begin(key, one)
        agreement.check()
    return agreement.keys


def _reason_to_skip(key: Key, size: StepSize, last: Point | None, limit: float) -> str:
    """Return why a point cannot be measured; empty if it can. `last`: the point before it, if there is one."""
    grown = 1.0 if last is None else size.ctx / last.size.ctx
    if is_peer(key):  # its memory cannot be planned: at most four times as much for twice the context
        needed = 0.0 if last is None else last.facts["over_bare_mb"] * 1e6
        squares = 0.0 if last is None else 4.0 * last.size.heads * last.size.ctx**2
        needed *= grown if needed < 0.25 * squares else grown**2  # linear if it is less than one array of T x T
    else:
        backend: Any = key[0].split()[0]
        needed = training_memory(size.model, size.batch, backend, recompute=key[0] == RECOMPUTE).total
    available = available_bytes()
    if available is not None and needed > available:
        return f"it needs about {readable(needed)} of memory, but only {readable(available)} is free"
    if last is not None and (seconds := last.times.median / 1e9 * size.flops / last.size.flops) > limit:
        return f"a step could take {seconds:,.0f} s, but --limit is {limit:g} s"
    return ""


def _measure(key: Key, size: StepSize, config: BenchContextsConfig) -> Point:
    """Measure a point once, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder, start(key, config.torch_python) as one:
        models = {}
        for name, sized in (("small", replace(size, ctx=min(size.ctx, WARM), batch=1)), ("large", size)):
            arrays: dict[str, Any] = dict(Parameters.initial(sized.model, 0))
            path = Path(folder) / f"{name}.npz"
            np.savez(path, **arrays)
            models[name] = {"size": asdict(sized), "weights": str(path)}
        one.ask("load")
        rules = Rules(turns=1, seconds=config.seconds)
        found = one.ask("context", **models, recompute=key[0] == RECOMPUTE, rules=as_request(rules))
        versions = one.ask("facts")["versions"]
    peak, bare = found["peak"] / 1e6, found["bare"] / 1e6
    facts = {
        "peak_rss_mb": peak, "over_bare_mb": peak - bare, "versions": versions, "recompute": key[0] == RECOMPUTE,
    }  # fmt: skip
    return Point(key, size, Summary.of(found["samples"]), found["first_step_s"], facts)
