"""Memory and time of a training step as the context grows: each point in a process of its own."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .bench_client import Competitor, CompetitorError, Progress
from .bench_config import BenchContextsConfig
from .bench_results import ContextResult, cpu_name, today
from .bench_step import StepSize
from .bench_steps import default_threads
from .capacity import available_bytes, readable, training_memory
from .errors import ConfigError
from .parameters import Parameters

RECOMPUTE = "numba --recompute"
WARM = 64  # context of the step that is made before memory is looked at: libraries and kernels are then loaded


@dataclass
class ContextReport:
    """The results, and what was left out, and why."""

    results: list[ContextResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bench_contexts(config: BenchContextsConfig, progress: Progress | None = None) -> ContextReport:
    """Measure all points. A point that would take too much memory or time is left out, and so are those after it.
    Raises UserError for what cannot run here."""
    progress, report = progress or Progress(), ContextReport()
    names = [*dict.fromkeys(name for backend in config.backend for name in _ways(backend)), *config.peers()]
    threads = config.threads[0] if config.threads else default_threads()
    for number, name in enumerate(names):
        last: ContextResult | None = None
        for place, ctx in enumerate(config.contexts()):
            progress.part(number * len(config.contexts()) + place, len(names) * len(config.contexts()),
                          f"{name}, ctx {ctx:,}")  # fmt: skip
            size = StepSize.of(config.at(ctx), config.sequences())
            reason = _too_much(name, size, last, config.limit)
            if not reason:
                try:
                    last = _measure(name, size, threads, config)
                    report.results.append(last)
                    continue
                except CompetitorError as error:
                    reason = str(error).rstrip(".")
            report.notes.append(f"Left out: {name} from ctx {ctx:,} on: {reason}.")
            break
    if not report.results:
        raise ConfigError(f"Nothing could be measured. {' '.join(report.notes)}")
    return report


def _ways(backend: str) -> tuple[str, ...]:
    return (backend, RECOMPUTE) if backend == "numba" else (backend,)


def _too_much(name: str, size: StepSize, last: ContextResult | None, limit: float) -> str:
    """Why a point cannot be measured; empty if it can."""
    if name.startswith("torch"):  # not ours to plan: at most four times the memory for twice the context
        needed = 0.0 if last is None else last.over_bare_mb * 1e6 * (size.ctx / last.ctx) ** 2
        if last is not None and last.over_bare_mb < 0.25 * last.ctx**2 * size.heads * 4 / 1e6:
            needed = last.over_bare_mb * 1e6 * size.ctx / last.ctx  # less than one array of T x T: it grows with T
    else:
        backend, recompute = ("numba", True) if name == RECOMPUTE else (name, False)
        needed = training_memory(size.model, size.batch, backend, recompute=recompute).total  # type: ignore[arg-type]
    available = available_bytes()
    if available is not None and needed > available:
        return f"it needs about {readable(needed)} of memory, and {readable(available)} are free"
    if last is not None and (seconds := last.ms_median / 1e3 * (size.ctx / last.ctx) ** 2) > limit:
        return f"a step would take up to {seconds:,.0f} s, and --limit is {limit:g} s"
    return ""


def _measure(name: str, size: StepSize, threads: int, config: BenchContextsConfig) -> ContextResult:
    """A point, in a process that does nothing else."""
    program, python = name.split()[0], config.torch_python if name.startswith("torch") else ""
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder, Competitor(program, threads, python) as one:
        files = {}
        for key, sized in (("small", replace(size, ctx=min(size.ctx, WARM), batch=1)), ("large", size)):
            arrays: dict[str, Any] = dict(Parameters.initial(sized.model, 0))
            path = Path(folder) / f"{key}.npz"
            np.savez(path, **arrays)
            files[key] = {"size": asdict(sized), "weights": str(path)}
        one.ask("load")
        found = one.ask("context", **files, recompute=name == RECOMPUTE, seconds=config.seconds)
        versions = one.ask("facts")["versions"]
    median = statistics.median(found["seconds"])
    peak, over = found["peak"] / 1e6, (found["peak"] - found["bare"]) / 1e6
    return ContextResult(
        backend=name, threads=threads, dtype="bfloat16" if name == "torch-bf16" else size.dtype, ctx=size.ctx,
        dim=size.dim, layers=size.layers, heads=size.heads, batch=size.batch, vocab=size.vocab, ms_median=1e3 * median,
        ms_per_token=1e3 * median / size.tokens, tokens_per_s=size.tokens / median,
        gflops=size.flops / median / 1e9, steps=len(found["seconds"]), peak_rss_mb=peak, over_bare_mb=over,
        versions=versions, cpu=cpu_name(), date=today(),
    )  # fmt: skip
