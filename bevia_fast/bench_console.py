"""What measuring looks like: progress while it goes on, tables at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

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
    Pair,
    Result,
    StepResult,
    append_csv,
    append_json,
    check_results_files,
    check_writable,
    pairs,
    read_json,
)
from .console import PlainConsole
from .errors import UserError, shown
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


def make_table(title: str, left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with columns of text, then columns of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


class WideConsole(PlainConsole):
    """A table is never cut off or folded: where the terminal is narrower, or there is none, lines are longer."""

    def show(self, table: Table) -> None:
        if table.title is not None:
            self.print(table.title, style="italic", soft_wrap=True)  # rich would fold it to the width of the table
            table.title = None
        before = self.width
        self.width = 1000
        self.width = max(before, self.measure(table).maximum)
        self.print(table)
        self.width = before


def save(config: Any, results: Sequence[Result]) -> None:
    """To the files that were asked for."""
    if config.json:
        append_json(config.json, results)
    if getattr(config, "csv", ""):
        append_csv(config.csv, results)


def machine(results: Sequence[Result]) -> str:
    """Where the results come from."""
    versions: dict[str, str] = {}
    for result in results:
        versions.update(result.versions)
    return f"{results[0].cpu}; " + ", ".join(f"{name} {number}" for name, number in versions.items())


def bench_step(config: BenchStepConfig) -> int:
    from .bench_steps import bench_steps

    check_results_files(config.json, config.csv, StepResult)
    with progress() as shown:
        report = bench_steps(config, shown)
    console, results = WideConsole(), report.results
    first = results[0]
    title = (f"A training step: ctx {first.ctx}, dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, vocab {first.vocab}")  # fmt: skip
    console.show(step_table(title, results))
    console.print(f"{report.checked}.", soft_wrap=True)
    for note in report.notes:
        console.print(note, soft_wrap=True)
    peaks = {result.threads: result.peak_gflops for result in results}
    peak = ", ".join(f"{peak:.0f} GFLOP/s with {count} thread{'s' * (count > 1)}" for count, peak in peaks.items())
    console.print(f"The vector units of this machine reached {peak} in this run.", soft_wrap=True)
    console.print(machine(results), soft_wrap=True)
    save(config, results)
    return 0


def step_table(title: str, results: Sequence[StepResult], varying: str = "") -> Table:
    """Results of training steps; `varying` names the size that is not the same in all."""
    fastest: dict[Any, float] = {}
    for result in results:
        value = getattr(result, varying) if varying else None
        fastest[value] = min(fastest.get(value, result.ms_median), result.ms_median)
    rows = []
    for result in results:
        value = getattr(result, varying) if varying else None
        rows.append([
            *([f"{value}"] if varying and varying != "threads" else []), result.backend, str(result.threads),
            number(result.ms_median), f"{number(result.ms_p20)} - {number(result.ms_p80)}",
            f"{result.tokens_per_s:,.0f}", f"{result.gflops:.1f}", f"{result.fraction_of_peak:.1%}",
            f"{result.ms_median / fastest[value]:.2f}", f"{result.peak_rss_mb:,.0f}", f"{result.first_step_s:.1f}",
        ])  # fmt: skip
    left = [*([varying] if varying and varying != "threads" else []), "backend"]
    return make_table(
        title, left,
        ["threads", "ms/step", "p20 - p80", "tokens/s", "GFLOP/s", "of peak", "x fastest", "MB", "first step s"], rows,
    )  # fmt: skip


def bench_kernels(config: BenchKernelsConfig) -> int:
    from .bench_kernels import bench_jobs, measure

    check_results_files(config.json, config.csv, KernelResult)
    rules = Rules(turns=config.turns, seconds=config.seconds, cold=config.cold)
    with progress() as shown:
        results = measure(bench_jobs(config), config.backend, config.threads, config.dtype, rules, shown)
    console = WideConsole()
    show_kernels(console, f"Kernels, {config.dtype}, caches {'cold' if config.cold else 'warm'}", results)
    for note in kernel_notes(results):
        console.print(note, soft_wrap=True)
    console.print(machine(results), soft_wrap=True)
    save(config, results)
    return 0


KERNEL_COLUMNS = ("", "threads", "ms", "p20 - p80", "GFLOP/s", "GB/s", "of peak", "of roof", "bound by", "memory MB",
                  "first s")  # fmt: skip


def show_kernels(console: Console, title: str, results: Sequence[KernelResult]) -> None:
    """A block for each kernel and size, with a line for each backend; narrow enough for most terminals."""
    blocks: dict[str, list[list[str]]] = {}
    for result in results:
        heading = (f"{result.kernel}  {result.size}: {number(result.flops / 1e6)} MFLOP, "
                   f"{number(result.bytes / 1e6)} MB, {number(result.intensity)} FLOP/byte")  # fmt: skip
        blocks.setdefault(heading, []).append([
            f"  {result.backend}", str(result.threads), number(result.ms_median),
            f"{number(result.ms_p20)} - {number(result.ms_p80)}", number(result.gflops), number(result.gbytes_per_s),
            f"{result.fraction_of_peak:.1%}", f"{result.fraction_of_roof:.0%}", result.bound,
            number(result.peak_rss_mb), f"{result.first_call_s:.1f}",
        ])  # fmt: skip
    show_blocks(console, title, KERNEL_COLUMNS, blocks)


def show_blocks(
    console: Console, title: str, columns: Sequence[str], blocks: Mapping[str, Sequence[Sequence[str]]]
) -> None:
    """A table in which a heading stands above each block of rows, and takes no column from them."""
    rows = [columns, *(row for block in blocks.values() for row in block)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

    console.print(title, style="italic", soft_wrap=True)
    console.print(line(columns), style="bold", soft_wrap=True)
    for heading, block in blocks.items():
        console.print(heading, style="cyan", soft_wrap=True)
        for cells in block:
            console.print(line(cells), soft_wrap=True)
    console.print()


def kernel_notes(results: Sequence[KernelResult]) -> list[str]:
    """What the columns are held against."""
    peaks = {result.threads: result.peak_gflops for result in results}
    peak = ", ".join(f"{peak:.0f} GFLOP/s with {count} thread{'s' * (count > 1)}" for count, peak in peaks.items())
    return [
        f"The peak: {peak}, the most that the vector units reached in this run. The roof: the peak, or what feeds it, "
        "memory or cache at the size of the kernel's arrays, measured in this run too.",
        "Memory: the most that the process had. First s: the first call, with compilation, which does not count.",
    ]


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
    console.print(f"{report.checked}.", soft_wrap=True)
    for note in dict.fromkeys(report.notes):
        console.print(note, soft_wrap=True)
    console.print(machine(report.results), soft_wrap=True)
    save(config, report.results)
    write_picture(config.out, png(draw_scaling(report.results, config.over)))
    console.print(config.out, soft_wrap=True)
    return 0


def bench_contexts(config: BenchContextsConfig) -> int:
    from .bench_contexts import bench_contexts as run
    from .bench_plots import draw_contexts
    from .plots import png

    check_results_files(config.json, config.csv, StepResult)
    check_writable(config.out)
    with progress() as shown:
        report = run(config, shown)
    first, rows = report.results[0], []
    for result in report.results:
        rows.append([
            result.backend, f"{result.ctx:,}", number(result.ms_median),
            f"{number(result.ms_p20)} - {number(result.ms_p80)}", number(1e3 / result.tokens_per_s),
            f"{result.tokens_per_s:,.0f}", f"{result.fraction_of_peak:.1%}", number(result.over_bare_mb),
            number(result.peak_rss_mb),
        ])  # fmt: skip
    console = WideConsole()
    title = (f"A training step over the context: dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, {first.threads} threads, {first.dtype}")  # fmt: skip
    heads = ["ctx", "ms/step", "p20 - p80", "ms/token", "tokens/s", "of peak", "MB", "MB of process"]
    console.show(make_table(title, ["backend"], heads, rows))
    console.print(f"{report.checked}.", soft_wrap=True)
    for note in report.notes:
        console.print(note, soft_wrap=True)
    console.print("MB: the most memory of the process, less what it had before the model. The vector units of this "
                  f"machine reached {first.peak_gflops:.0f} GFLOP/s in this run.", soft_wrap=True)  # fmt: skip
    console.print(machine(report.results), soft_wrap=True)
    save(config, report.results)
    write_picture(config.out, png(draw_contexts(report.results)))
    console.print(config.out, soft_wrap=True)
    return 130 if report.interrupted else 0


def bench_compare(config: BenchCompareConfig) -> int:
    a, b = read_json(config.a), read_json(config.b)
    found, rest = pairs(a, b)
    if not found:
        raise UserError(f"{config.a} and {config.b} have no measurement in common.")
    console = WideConsole()
    show_pairs(console, found)
    for name, results in (("a", a), ("b", b)):
        cpus = ", ".join(dict.fromkeys(shown(f"{r['cpu']} ({r.get('date', '')})") for r in results))
        console.print(f"{name}: {config.a if name == 'a' else config.b}, {cpus}", soft_wrap=True)
    if rest:
        console.print(f"{rest} measurement{'s stand' if rest > 1 else ' stands'} in one of the files only.")
    return 0


def show_pairs(console: Console, found: Sequence[Pair]) -> None:
    blocks: dict[str, list[list[str]]] = {}
    for pair in found:
        blocks.setdefault(shown(pair.what), []).append([
            f"  {shown(pair.who)}", number(pair.a["ms_median"]), number(pair.b["ms_median"]), f"{pair.ratio:.2f}",
            f"{pair.a['fraction_of_peak']:.1%}", f"{pair.b['fraction_of_peak']:.1%}",
        ])  # fmt: skip
    columns = ("", "a ms", "b ms", "a/b", "a of its peak", "b of its peak")
    show_blocks(console, "Two files of results; where a/b is above 1, b is faster", columns, blocks)


def write_picture(path: str, data: bytes) -> None:
    """Raises UserError if it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None


def profile_kernels(config: ProfileKernelConfig) -> int:
    from .bench_kernels import measure, profile_jobs
    from .bench_plots import draw_roofline
    from .plots import png

    if config.asm:
        from .profile_asm import show_asm

        return show_asm(config, WideConsole())
    jobs = profile_jobs(config)
    check_results_files(config.json, "", KernelResult)
    check_writable(config.out)
    rules = Rules(seconds=config.seconds, cold=config.cold)
    threads = [config.threads] if config.threads else []
    with progress() as shown:
        results = measure(jobs, config.backend, threads, config.dtype, rules, shown)
    console = WideConsole()
    show_kernels(console, f"Kernels, {config.dtype}, caches {'cold' if config.cold else 'warm'}", results)
    for note in kernel_notes(results):
        console.print(note, soft_wrap=True)
    console.print(machine(results), soft_wrap=True)
    save(config, results)
    write_picture(config.out, png(draw_roofline(results)))
    console.print(config.out, soft_wrap=True)
    return 0


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


def number(value: float) -> str:
    """Three digits that say something: 0.0123, 1.23, 12.3, 1,230."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"
