"""Time whole training steps of several competitors in turns: `bench step` and `bench scaling`."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends import default_threads
from ..config import BackendName
from ..errors import ConfigError, UserError
from ..machine import available_bytes, cpu_name, refuse_too_large
from ..planning.memory import training_memory
from ..reporter import Progress
from .competitor import Competitor
from .options import BenchScalingConfig, BenchStepConfig
from .precheck import Agreement, Key, is_peer, start
from .results import StepReport, StepResult, highest_peaks, today
from .stopwatch import Rules, Summary
from .training_step import StepSize
from .turns import Reading, interleaved


def needed_bytes(size: StepSize, keys: Iterable[Key], recompute: bool = False) -> int:
    """Return the bytes that all competitors need together, as they run at the same time. A peer, whose memory cannot be
    planned, counts as numba, which needs less than PyTorch."""
    backends: list[BackendName] = ["numpy" if name == "numpy" else "numba" for name, _ in keys]
    return sum(
        training_memory(size.model, size.batch, backend, recompute=recompute, optimizer=size.optimizer).total
        for backend in backends
    )


def peers_have(size: StepSize) -> bool:
    """Return whether `torch_peer` has such a model and step: GPT-2's, with either form of GELU."""
    usual = replace(size, activation="gelu") if size.activation == "gelu_erf" else size
    return not (size.dropout or size.accumulate > 1 or usual.variant)


def bench_steps(config: BenchStepConfig, progress: Progress | None = None) -> StepReport:
    """Time training steps of one size.

    Raises UserError for what cannot run here, StoppedRun if two competitors disagree.
    """
    progress, report = progress or Progress(), StepReport()
    step = config.step()
    size = StepSize.of(step.model, step.batch, step.accumulate, step.optimizer)
    threads = tuple(dict.fromkeys(config.threads or (default_threads(),)))
    rules = Rules(turns=config.turns, seconds=config.seconds)
    names = [*dict.fromkeys(config.backend), *config.peers()]
    if size.dtype != "float32" and "torch-bf16" in names:
        raise ConfigError("--peer torch-bf16 needs --dtype float32; with float64, use torch-eager.")
    if config.peers() and not peers_have(size):
        raise ConfigError("--peer compares steps of GPT-2's model, without --dropout and --accumulate; omit it.")
    keys: list[Key] = [(name, count) for count in threads for name in names]
    free, needed = available_bytes(), needed_bytes(size, keys, step.recompute)
    refuse_too_large(needed, "Training this model" if len(keys) == 1 else f"Training this model {len(keys)} times")
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder, contextlib.ExitStack() as processes:
        probes = {count: processes.enter_context(Competitor("peak", count)) for count in threads}
        progress.stage("Measuring the peak of the vector units")
        # this also refuses more threads than the machine has
        readings = [Reading.take(probe, size.roof) for probe in probes.values()]
        competitors = {key: processes.enter_context(start(key, config.torch_python)) for key in keys}
        progress.stage("Loading the competitors")
        for competitor in competitors.values():
            competitor.ask("load")
        agreement = Agreement(size, keys, Path(folder), free and free - needed, report, progress)
        agreement.recompute = step.recompute
        agreement.run_reference(threads[0])
        for key in keys:
            agreement.begin(key, competitors[key], rules)
        agreement.check()
        progress.stage("Timing in turns")
        left = {key: competitors[key] for key in agreement.keys}
        timed = interleaved(
            left, rules, progress, lambda key: Reading.take(probes[key[1]], size.roof), agreement.leave_out, readings
        )
        report.notes += timed.notes
        report.results = [
            step_result(
                key, size, summary, timed.machine.peak(key[1]), agreement.first[key],
                competitors[key].ask("facts") | {"recompute": step.recompute and not is_peer(key)},
            )
            for key, summary in timed.times.items()
        ]
    return report


def step_result(
    key: Key, size: StepSize, times: Summary, peak: float, first_s: float, facts: dict[str, Any]
) -> StepResult:
    """Return the result of one competitor. `facts`: further fields of it, such as `peak_rss_mb` and `versions`."""
    gflops = size.flops / times.median
    rounded = key[0] == "torch-bf16" or (size.precision == "bf16" and not is_peer(key))
    dtype = "bfloat16" if rounded else size.dtype
    return StepResult(
        backend=key[0], threads=key[1], dtype=dtype, ctx=size.ctx, dim=size.dim, layers=size.layers, heads=size.heads,
        batch=size.batch, vocab=size.vocab, ms_median=times.median / 1e6, ms_p20=times.p20 / 1e6,
        ms_p80=times.p80 / 1e6, tokens_per_s=size.tokens / times.median * 1e9, flops_per_step=size.flops,
        gflops=gflops, peak_gflops=peak, fraction_of_peak=gflops / peak, first_step_s=first_s, cpu=cpu_name(),
        date=today(), dropout=size.dropout, accumulate=size.accumulate, variant=size.variant, **facts,
    )  # fmt: skip


def scaling_values(config: BenchScalingConfig) -> tuple[int, ...]:
    """Return the sizes to time, from the smallest to the largest."""
    if config.values:
        return tuple(sorted(set(config.values)))
    if config.over == "threads":
        return tuple(range(1, default_threads() + 1))
    model = config.model()
    smallest = {"ctx": model.ctx, "batch": config.sequences(), "dim": model.dim}[config.over]
    return tuple(smallest << power for power in range(4))


def bench_scaling(config: BenchScalingConfig, progress: Progress | None = None) -> StepReport:
    """Time several sizes, one after the other. A size that cannot be timed ends the series and is noted in the report.
    If it is the first, its UserError is raised."""
    progress, report = progress or Progress(), StepReport()
    values = scaling_values(config)
    for number, value in enumerate(values):
        progress.part(number, len(values), f"{config.over} {value}")
        try:
            one = bench_steps(config.at(value), progress)
        except UserError as error:
            if not report.results:
                raise
            report.notes.append(f"Left out {config.over} from {value:,} on: {str(error).rstrip('.')}.")
            break
        report.results += one.results
        report.notes += one.notes
        report.checked = one.checked
    peaks = highest_peaks(report.results)  # all sizes are one run
    report.results = [
        replace(r, peak_gflops=peaks[r.threads], fraction_of_peak=r.gflops / peaks[r.threads]) for r in report.results
    ]
    return report
