"""What measuring looks like: progress while it goes on, tables at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from . import bench_client
from .bench_config import (
    BenchCompareConfig,
    BenchContextsConfig,
    BenchKernelsConfig,
    BenchScalingConfig,
    BenchStepConfig,
    ProfileKernelConfig,
    ProfileStepConfig,
)
from .bench_results import (
    KernelResult,
    Result,
    StepReport,
    StepResult,
    append_csv,
    append_json,
    check_results_files,
    check_writable,
    pairs,
    peaks,
    read_json,
)
from .bench_tables import (
    WideConsole,
    context_table,
    kernel_notes,
    machine,
    make_table,
    show_kernels,
    show_pairs,
    step_table,
)
from .errors import UserError
from .errors import shown as printable
from .timing import Rules


class ShownProgress(bench_client.Progress):
    """A bar on standard error: so a table can be sent elsewhere while one looks on."""

    def __init__(self, bar: Progress) -> None:
        self.bar, self.task = bar, bar.add_task("Starting", total=None)
        self.words, self.index, self.count = ["", "Starting", ""], 0, 1

    def stage(self, what: str) -> None:
        self._show(["", what, ""] if self.count == 1 else [self.words[0], what, ""])
        if self.count == 1:
            self.bar.update(self.task, total=None)

    def advance(self, done: float, total: float, what: str = "") -> None:
        self._show([*self.words[:2], what])
        self.bar.update(self.task, completed=(self.index + done / total) / self.count, total=1)

    def part(self, index: int, count: int, what: str) -> None:
        self.index, self.count = index, count
        self._show([what, "", ""])
        self.bar.update(self.task, completed=index / count, total=1)

    def _show(self, words: list[str]) -> None:
        self.words = words
        self.bar.update(self.task, description=": ".join(filter(None, words)))


@contextmanager
def progress() -> Iterator[ShownProgress]:
    """A bar while something takes a while; nothing where nobody watches."""
    console = Console(file=sys.stderr)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        yield ShownProgress(bar)


def tell(console: Console, lines: Iterable[str]) -> None:
    """Each as it is, however narrow the terminal."""
    for line in lines:
        console.print(line, soft_wrap=True)


def save(config: Any, results: Sequence[Result]) -> None:
    """To the files that were asked for."""
    if config.json:
        append_json(config.json, results)
    if getattr(config, "csv", ""):
        append_csv(config.csv, results)


def write_picture(console: Console, path: str, data: bytes) -> None:
    """Raises UserError if it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None
    tell(console, [path])


def bench_step(config: BenchStepConfig) -> int:
    from .bench_steps import bench_steps

    check_results_files(config.json, config.csv, StepResult)
    with progress() as shown:
        report = bench_steps(config, shown)
    console, first = WideConsole(), report.results[0]
    title = (f"A training step: ctx {first.ctx}, dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, vocab {first.vocab}")  # fmt: skip
    console.show(step_table(title, report.results))
    tell_and_save(console, config, report)
    return 0


def tell_and_save(console: Console, config: Any, report: StepReport, note: str = "") -> None:
    """What is said under a table of steps."""
    reached = f"The vector units of this machine reached {peaks(report.results)} in this run."
    notes = dict.fromkeys(report.notes)  # for each size perhaps the same
    tell(console, [f"{report.checked}.", *notes, *filter(None, [note]), reached, machine(report.results)])
    save(config, report.results)


def bench_scaling(config: BenchScalingConfig) -> int:
    from .bench_plots import draw_scaling
    from .bench_steps import bench_scaling as run
    from .plots import png

    check_results_files(config.json, config.csv, StepResult)
    check_writable(config.out)
    with progress() as shown:
        report = run(config, shown)
    console = WideConsole()
    console.show(step_table(f"A training step over {config.over}", report.results, config.over))
    tell_and_save(console, config, report)
    write_picture(console, config.out, png(draw_scaling(report.results, config.over)))
    return 0


def bench_contexts(config: BenchContextsConfig) -> int:
    from .bench_contexts import bench_contexts as run
    from .bench_plots import draw_contexts
    from .plots import png

    check_results_files(config.json, config.csv, StepResult)
    check_writable(config.out)
    with progress() as shown:
        report = run(config, shown)
    console = WideConsole()
    console.show(context_table(report.results))
    tell_and_save(console, config, report, "MB: the most memory of the process, less what it had before the model.")
    write_picture(console, config.out, png(draw_contexts(report.results)))
    return 130 if report.interrupted else 0


def bench_compare(config: BenchCompareConfig) -> int:
    a, b = read_json(config.a), read_json(config.b)
    found, rest = pairs(a, b)
    if not found:
        raise UserError(f"{config.a} and {config.b} have no measurement in common.")
    console = WideConsole()
    show_pairs(console, found)
    for name, path, results in (("a", config.a, a), ("b", config.b, b)):
        cpus = dict.fromkeys(printable(f"{r['cpu']} ({r.get('date', '')})") for r in results)
        tell(console, [f"{name}: {path}, {', '.join(cpus)}"])
    if rest:
        console.print(f"{rest} measurement{'s stand' if rest > 1 else ' stands'} in one of the files only.")
    return 0


def bench_kernels(config: BenchKernelsConfig) -> int:
    from .bench_kernels import bench_jobs, measure

    check_results_files(config.json, config.csv, KernelResult)
    rules = Rules(turns=config.turns, seconds=config.seconds, cold=config.cold)
    with progress() as shown:
        results = measure(bench_jobs(config), config.backend, config.threads, config.dtype, rules, shown)
    show_and_save(WideConsole(), config, results)
    return 0


def profile_kernels(config: ProfileKernelConfig) -> int:
    from .bench_kernels import measure, profile_jobs
    from .bench_plots import draw_roofline
    from .plots import png

    console = WideConsole()
    if config.asm:
        from .profile_asm import show_asm

        return show_asm(config, console)
    jobs = profile_jobs(config)
    check_results_files(config.json, "", KernelResult)
    check_writable(config.out)
    rules = Rules(seconds=config.seconds, cold=config.cold)
    threads = [config.threads] if config.threads else []
    with progress() as shown:
        results = measure(jobs, config.backend, threads, config.dtype, rules, shown)
    show_and_save(console, config, results)
    write_picture(console, config.out, png(draw_roofline(results)))
    return 0


def show_and_save(
    console: Console, config: BenchKernelsConfig | ProfileKernelConfig, results: Sequence[KernelResult]
) -> None:
    """Kernels, as a table and in the files that were asked for."""
    show_kernels(console, f"Kernels, {config.dtype}, caches {'cold' if config.cold else 'warm'}", results)
    tell(console, [*kernel_notes(results), machine(results)])
    save(config, results)


def profile_list() -> int:
    from .bench_kernels import families, formula_cost
    from .kernels.contract import OPERATIONS

    rows = []
    for family, names in families().items():
        for name in names:
            rows.append([family, name, OPERATIONS[name].doc.splitlines()[0].strip(), *formula_cost(OPERATIONS[name])])
    console = WideConsole()
    console.show(make_table("Kernels; flops and bytes are those of the laptop preset", ["name", "operation", "formula"],
                            ["flops", "bytes"], rows))  # fmt: skip
    return 0


def run_measuring(config: Any) -> int:
    """Do what a configuration of `bench` or `profile` asks for; returns the exit code."""
    if isinstance(config, BenchStepConfig):
        return bench_step(config)
    if isinstance(config, BenchKernelsConfig):
        return bench_kernels(config)
    if isinstance(config, BenchScalingConfig):
        return bench_scaling(config)
    if isinstance(config, BenchContextsConfig):
        return bench_contexts(config)
    if isinstance(config, BenchCompareConfig):
        return bench_compare(config)
    if isinstance(config, ProfileKernelConfig):
        return profile_kernels(config)
    if isinstance(config, ProfileStepConfig):
        from .profile_console import profile_step

        return profile_step(config)
    return profile_list()
