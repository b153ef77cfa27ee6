"""Memory and time of a training step as the context grows: each point in a process of its own."""

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
from .turns import Look, Machine

ATTEMPTS = 3  # at a point, at most, until the machine gave what it gives at other times
WARM = 64  # context of the step that is made before memory is looked at: libraries and kernels are then loaded


@dataclass(frozen=True)
class Point:
    """What was found at one context. `facts`: as `step_times.step_result` wants them."""

    key: Key
    size: StepSize
    times: Summary
    first_s: float
    facts: dict[str, Any]


def bench_contexts(config: BenchContextsConfig, progress: Progress | None = None) -> StepReport:
    """Measure all points, after all competitors have been seen to agree at the shortest context. A point that would
    take too much memory or time is left out, and so are those after it. Ctrl-C ends it, with the points until then.

    Raises UserError for what cannot run here, StoppedRun if two competitors disagree.
    """
    progress, report, points = progress or Progress(), StepReport(), list[Point]()
    threads = config.threads[0] if config.threads else default_threads()
    names = [*dict.fromkeys(name for backend in config.backend for name in _ways(backend)), *config.peers()]
    sizes = [StepSize.of(config.at(ctx), config.batch) for ctx in config.contexts()]
    machine, restless = Machine(), 0

    def look() -> Look:
        machine.learn(now := Look.by(probe, config.dtype))
        return now

    def measured(key: Key, size: StepSize) -> Point:
        """A point, from a time in which the machine gave what it can; if none is found, the fastest of the attempts."""
        nonlocal restless
        found: list[Point] = []
        for _ in range(ATTEMPTS):
            before = look()
            found.append(_measure(key, size, config))
            if machine.steady((before, look())):
                return found[-1]
        restless += 1
        return min(found, key=lambda point: point.times.median)

    def leave_out(key: Key, size: StepSize, reason: str) -> None:
        report.notes.append(f"Left out: {key[0]} from ctx {size.ctx:,} on: {reason}.")

    with Competitor("peak", threads) as probe:
        try:
            progress.stage("Measuring what the vector units reach")
            look()  # refuses more threads than there are
            keys = [(name, threads) for name in names]
            for key in list(keys):
                if reason := _too_much(key, sizes[0], None, config.limit):
                    leave_out(key, sizes[0], reason)
                    keys.remove(key)
            keys = _agreeing(keys, sizes[0], config, report, progress) if keys else []
            for number, key in enumerate(keys):
                last: Point | None = None
                for place, size in enumerate(sizes):
                    progress.part(number * len(sizes) + place, len(keys) * len(sizes), f"{key[0]}, ctx {size.ctx:,}")
                    reason = _too_much(key, size, last, config.limit)
                    if not reason:
                        try:
                            last = measured(key, size)
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
    if restless:
        report.notes.append(
            f"In {restless} of {len(points)} points the machine gave less than at other times, or its cores were "
            "further apart, whenever they were tried."
        )
    report.results = [
        step_result(one.key, one.size, one.times, machine.peak(threads), one.first_s, one.facts) for one in points
    ]
    return report


def _ways(backend: str) -> tuple[str, ...]:
    return (backend, RECOMPUTE) if backend == "numba" else (backend,)


def _agreeing(
    keys: list[Key], size: StepSize, config: BenchContextsConfig, report: StepReport, progress: Progress
) -> list[Key]:
    """Those of the competitors that run here; all have been held against NumPy."""
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder:
        agreement = Agreement(size, keys, Path(folder), available_bytes(), report, progress)
        agreement.refer(keys[0][1])
        for key in keys:
            with start(key, config.torch_python) as one:
                one.ask("load")
                agreement.begin(key, one)
        agreement.check()
    return agreement.keys


def _too_much(key: Key, size: StepSize, last: Point | None, limit: float) -> str:
    """Why a point cannot be measured; empty if it can."""
    grown = 1.0 if last is None else size.ctx / last.size.ctx
    if is_peer(key):  # not ours to plan: at most four times the memory for twice the context
        needed = 0.0 if last is None else last.facts["over_bare_mb"] * 1e6
        squares = 0.0 if last is None else 4.0 * last.size.heads * last.size.ctx**2
        needed *= grown if needed < 0.25 * squares else grown**2  # less than one array of T x T: it grows with T
    else:
        backend: Any = key[0].split()[0]
        needed = training_memory(size.model, size.batch, backend, recompute=key[0] == RECOMPUTE).total
    available = available_bytes()
    if available is not None and needed > available:
        return f"it needs about {readable(needed)} of memory, and {readable(available)} are free"
    if last is not None and (seconds := last.times.median / 1e9 * grown**2) > limit:
        return f"a step would take up to {seconds:,.0f} s, and --limit is {limit:g} s"
    return ""


def _measure(key: Key, size: StepSize, config: BenchContextsConfig) -> Point:
    """A point, in a process that does nothing else."""
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
    facts = {"peak_rss_mb": peak, "over_bare_mb": peak - bare, "versions": versions}
    return Point(key, size, Summary.of(found["samples"]), found["first_step_s"], facts)
