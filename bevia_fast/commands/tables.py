"""Results of measurements as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..decorations import drawn
from ..errors import UserError, shown
from ..measuring.options import BenchKernelsConfig, ProfileKernelConfig
from ..measuring.results import KernelResult, Pair, Result, StepResult, append_csv, append_json, peaks
from .console import PlainConsole


def make_table(title: str, left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table with `left` columns of text, then `right` columns of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


class WideConsole(PlainConsole):
    """A console that never truncates or folds a table: lines may be longer than the terminal is wide."""

    def show(self, table: Table) -> None:
        if table.title is not None:
            self.print(table.title, style="italic", soft_wrap=True)  # rich would fold it at the width of the table
            table.title = None
        before = self.width
        self.width = 1000
        self.width = max(before, self.measure(table).maximum)
        self.print(table)
        self.width = before


def machine(results: Sequence[Result]) -> str:
    """Return the CPU and the versions that the results come from."""
    versions: dict[str, str] = {}
    for result in results:
        versions.update(result.versions)
    return f"{results[0].cpu}; " + ", ".join(f"{name} {number}" for name, number in versions.items())


def step_table(title: str, results: Sequence[StepResult], varying: str = "") -> Table:
    """Return a table of training steps; `varying` names the size in which they differ."""
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


def context_table(results: Sequence[StepResult]) -> Table:
    """Return a table of training steps over the context length, with the memory of each."""
    first, rows = results[0], []
    for result in results:
        rows.append([
            result.backend, f"{result.ctx:,}", number(result.ms_median),
            f"{number(result.ms_p20)} - {number(result.ms_p80)}", number(1e3 / result.tokens_per_s),
            f"{result.tokens_per_s:,.0f}", f"{result.fraction_of_peak:.1%}", number(result.over_bare_mb),
            number(result.peak_rss_mb),
        ])  # fmt: skip
    title = (f"A training step over the context length: dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, {first.threads} threads, {first.dtype}")  # fmt: skip
    columns = ["ctx", "ms/step", "p20 - p80", "ms/token", "tokens/s", "of peak", "MB", "MB of process"]
    return make_table(title, ["backend"], columns, rows)


KERNEL_COLUMNS = ("", "threads", "ms", "p20 - p80", "GFLOP/s", "GB/s", "of peak", "of roof", "bound by", "memory MB",
                  "first s")  # fmt: skip


def show_kernels(console: Console, title: str, results: Sequence[KernelResult]) -> None:
    """Print a block for each kernel and size, with a line per backend."""
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
    """Print a table in which each block of rows has a heading above it."""
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
    """Explain the columns."""
    return [
        f"Peak: {peaks(results)}, the most that the vector units reached in this run. Roof: the peak, or what the "
        "memory or cache that holds the kernel's arrays can feed, measured in the same run.",
        "Memory: the peak of the process. First s: the first call, which includes compilation and is excluded.",
    ]


def show_pairs(console: Console, found: Sequence[Pair]) -> None:
    blocks: dict[str, list[list[str]]] = {}
    for pair in found:
        blocks.setdefault(shown(pair.what), []).append([
            f"  {shown(pair.who)}", number(pair.a["ms_median"]), number(pair.b["ms_median"]), f"{pair.ratio:.2f}",
            f"{pair.a['fraction_of_peak']:.1%}", f"{pair.b['fraction_of_peak']:.1%}",
        ])  # fmt: skip
    columns = ("", "a ms", "b ms", "a/b", "a of its peak", "b of its peak")
    show_blocks(console, "Two files of results; b is faster where a/b is above 1", columns, blocks)


def number(value: float) -> str:
    """Return a number with three significant digits: 0.0123, 1.23, 12.3, 1,230."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print lines without folding them, however narrow the terminal is."""
    for line in lines:
        console.print(line, soft_wrap=True)


def save(config: Any, results: Sequence[Result]) -> None:
    """Save the results to the requested files."""
    if config.json:
        append_json(config.json, results)
    if getattr(config, "csv", ""):
        append_csv(config.csv, results)


def write_picture(console: Console, path: str, draw: Callable[[], bytes]) -> None:
    """Write what `draw` returns and print the path; if it fails, print why, since the results are on the screen.

    Raises UserError if the file cannot be written.
    """
    data = drawn(path, draw, lambda note: print_lines(console, [f"note: {note}"]))
    if data is None:
        return
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None
    print_lines(console, [path])


def show_and_save(
    console: Console, config: BenchKernelsConfig | ProfileKernelConfig, results: Sequence[KernelResult]
) -> None:
    """Show kernels as a table, and save them to the requested files."""
    show_kernels(console, f"Kernels, {config.dtype}, caches {'cold' if config.cold else 'warm'}", results)
    print_lines(console, [*kernel_notes(results), machine(results)])
    save(config, results)
