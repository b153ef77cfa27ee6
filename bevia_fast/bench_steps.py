"""Whole training steps of several competitors, in turns: `bench step` and `bench scaling`."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .bench_client import Competitor, CompetitorError, Progress, as_request, interleaved
from .bench_config import BenchScalingConfig, BenchStepConfig
from .bench_results import StepResult, cpu_name, today
from .bench_step import StepSize
from .capacity import refuse_too_large, training_memory
from .comparison import difference
from .crosscheck import compare_gradients, gradient_tolerance
from .errors import ConfigError, StoppedRun
from .parameters import Parameters
from .timing import Rules, Summary

BFLOAT16_TOLERANCE = 0.1  # of the gradient's norm: numbers with 8 bits, summed over layers
Key = tuple[str, int]  # a competitor's name and threads


@dataclass
class StepReport:
    """The results, and what else there is to say."""

    results: list[StepResult]
    checked: str = ""  # how the competitors were held against each other
    notes: list[str] = field(default_factory=list)


def _is_peer(key: Key) -> bool:
    return key[0].startswith("torch")


def default_threads() -> int:
    """One for each physical core, or as many as NUMBA_NUM_THREADS allows."""
    import numba

    from .kernels.numba_jit._threads import physical_cores

    return min(physical_cores(), int(numba.config.NUMBA_NUM_THREADS))


def bench_steps(config: BenchStepConfig | BenchScalingConfig, progress: Progress | None = None) -> StepReport:
    """Time one size. Raises UserError for what cannot run here, StoppedRun if two competitors disagree."""
    progress = progress or Progress()
    size = StepSize.of(config.model(), config.sequences())
    threads = dict.fromkeys(config.threads or (default_threads(),))
    rules = Rules(turns=config.turns, seconds=config.seconds)
    names = [*dict.fromkeys(config.backend), *config.peers()]
    if size.dtype != "float32" and "torch-bf16" in names:
        raise ConfigError("--peer torch-bf16 goes with --dtype float32; take torch-eager.")
    needed = sum(training_memory(size.model, size.batch, name).total for name in config.backend)
    refuse_too_large(needed, "Training this model")
    with tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder, contextlib.ExitStack() as processes:
        probes = {count: processes.enter_context(Competitor("peak", count)) for count in threads}
        peaks: dict[int, list[float]] = {count: [] for count in threads}

        def measure_peak() -> None:
            for count, probe in probes.items():
                peaks[count].append(probe.ask("peak", dtype=size.dtype, repeats=3)["gflops"])

        progress.stage("Measuring what the vector units reach")
        measure_peak()  # the first: it refuses more threads than there are
        competitors: dict[Key, Competitor] = {}
        for count in threads:
            for name in names:
                python = config.torch_python if name.startswith("torch") else ""
                competitors[name, count] = processes.enter_context(Competitor(name, count, python))
        progress.stage("Loading the competitors")
        for competitor in competitors.values():
            competitor.ask("load")
        report = StepReport([])

        def leave_out(key: Key, error: CompetitorError) -> None:
            """One way to run a peer that fails is no reason to lose the others; that the last one fails is an error."""
            if not any(other != key and _is_peer(other) for other in competitors):
                raise error
            report.notes.append(f"Left out: {error}")
            del competitors[key]

        session = _Session(size, rules, Path(folder), progress, leave_out)
        session.prepare(competitors)
        if not any(name == "numpy" for name, _ in competitors):
            reference = processes.enter_context(Competitor("numpy", next(iter(threads))))
            session.start(("numpy", reference.threads), reference, timed=False)
        report.checked = session.check(competitors)
        progress.stage("Timing in turns")
        times = interleaved(competitors, rules, progress, measure_peak, leave_out)
        for key, competitor in competitors.items():
            peak = statistics.median(peaks[key[1]])
            report.results.append(_result(key, size, times[key], peak, session.first[key], competitor.ask("facts")))
    return report


class _Session:
    """One size: competitors are made ready for it, and held against each other."""

    def __init__(
        self, size: StepSize, rules: Rules, folder: Path, progress: Progress,
        leave_out: Callable[[Key, CompetitorError], None],
    ) -> None:  # fmt: skip
        self.size, self.rules, self.folder, self.progress, self.leave_out = size, rules, folder, progress, leave_out
        self.weights = Parameters.initial(size.model, 0)
        arrays: dict[str, Any] = dict(self.weights)
        np.savez(folder / "weights.npz", **arrays)
        self.first: dict[Key, float] = {}
        self.gradients: dict[Key, Path] = {}

    def start(self, key: Key, competitor: Competitor, timed: bool = True) -> None:
        """The first step, with compilation, if it is to be timed; and the gradients."""
        self.progress.stage(f"First step of {competitor.name}, with compilation" if timed else "Gradients of numpy")
        path = self.folder / f"{key[0]}-{key[1]}.npz"
        answer = competitor.ask(
            "step", size=asdict(self.size), rules=as_request(self.rules), weights=str(self.folder / "weights.npz"),
            gradients=str(path), timed=timed,
        )  # fmt: skip
        self.first[key] = answer["build_s"] + answer["first_step_s"]
        self.gradients[key] = path

    def prepare(self, competitors: dict[Key, Competitor]) -> None:
        """The first step of each."""
        for key, competitor in list(competitors.items()):
            try:
                self.start(key, competitor)
            except CompetitorError as error:
                if not _is_peer(key):
                    raise
                self.leave_out(key, error)

    def check(self, competitors: dict[Key, Competitor]) -> str:
        """Loss and gradients of each against NumPy's. Raises StoppedRun, naming the tensor."""
        self.progress.stage("Comparing loss and gradients")
        key = next(k for k, path in self.gradients.items() if k[0] == "numpy")
        expected, expected_loss = self._read(self.gradients[key])
        worst, limit = 0.0, gradient_tolerance(self.size.model)
        for name, threads in list(competitors):
            found, loss = self._read(self.gradients[name, threads])
            if name == "torch-bf16":
                error = float(np.linalg.norm(found.flat - expected.flat) / np.linalg.norm(expected.flat))
                if not error <= BFLOAT16_TOLERANCE:
                    sentence = f"{name} has another gradient than numpy: they differ by {error:.2g} of its norm."
                    self.leave_out((name, threads), CompetitorError(sentence))
                continue
            compared = [
                difference("loss", np.array([loss]), np.array([expected_loss]), limit),
                *compare_gradients(found, expected),
            ]
            wrong = max(compared, key=lambda comparison: comparison.error)
            if not wrong.ok:
                raise StoppedRun(f"{name} differs from numpy, so nothing was timed: {wrong}.")
            worst = max(worst, wrong.error)
        return f"Loss and gradients agree with numpy's: worst relative difference {worst:.1g}, {limit:.0e} is allowed"

    def _read(self, path: Path) -> tuple[Parameters, float]:
        gradients = Parameters(self.size.model)
        with np.load(path) as archive:
            for name in gradients:
                gradients[name][...] = archive[name]
            return gradients, float(archive["loss"])


def _result(
    key: Key, size: StepSize, times: Summary, peak: float, first: float, facts: dict[str, Any]
) -> StepResult:
    gflops = size.flops / times.median
    dtype = "bfloat16" if key[0] == "torch-bf16" else size.dtype
    return StepResult(
        backend=key[0], threads=key[1], dtype=dtype, ctx=size.ctx, dim=size.dim, layers=size.layers, heads=size.heads,
        batch=size.batch, vocab=size.vocab, ms_median=times.median / 1e6, ms_p20=times.p20 / 1e6,
        ms_p80=times.p80 / 1e6, tokens_per_s=size.tokens / times.median * 1e9, flops_per_step=size.flops,
        gflops=gflops, peak_gflops=peak, fraction_of_peak=gflops / peak, peak_rss_mb=facts["peak_rss_mb"],
        first_step_s=first, versions=facts["versions"], cpu=cpu_name(), date=today(),
    )  # fmt: skip


def scaling_values(config: BenchScalingConfig) -> tuple[int, ...]:
    """The sizes to go through."""
    if config.values:
        return tuple(dict.fromkeys(config.values))
    if config.over == "threads":
        return tuple(range(1, default_threads() + 1))
    model = config.model()
    start = {"ctx": model.ctx, "batch": config.sequences(), "dim": model.dim}[config.over]
    return tuple(start << power for power in range(4))


def bench_scaling(config: BenchScalingConfig, progress: Progress | None = None) -> StepReport:
    """Time several sizes, one after the other."""
    progress = progress or Progress()
    report = StepReport([])
    values = scaling_values(config)
    for number, value in enumerate(values):
        progress.part(number, len(values), f"{config.over} {value}")
        one = bench_steps(config.at(value), progress)
        report.results += one.results
        report.notes += one.notes
        report.checked = one.checked
    return report
