"""Results of measurements as tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import STANDARD, picture_format
from ..decorations import drawn
from ..errors import UserError, counted, reason, shown
from ..files import RUNS, write_atomically, write_to_standard_output, writing
from ..measuring.options import BenchKernelsConfig, ProfileKernelConfig
from ..measuring.results import KernelResult, Pair, Result, StepResult, append_csv, append_json, peaks
from .console import PlainConsole
from .sheet import Sheet, wrapped


def make_table(
    title: str, left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]], droppable: Sequence[str] = (),
    sentences: Sequence[str] = (),
) -> Sheet:  # fmt: skip
    """Return a table with `left` columns of text, then `right` columns of numbers; see `Sheet` for the rest."""
    return Sheet(title, left, right, {"": rows}, droppable, sentences)


LEAST_WIDTH = 20  # characters


class FittedConsole(PlainConsole):
    """A console that fits tables and sentences to the terminal, and never breaks a word or a number.

    Where the output goes to a file or a pipe, nothing is left out and no line is broken, unless COLUMNS gives a width.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr)
        if self.width < LEAST_WIDTH:  # some terminals say 0
            self.width = LEAST_WIDTH

    @property
    def room(self) -> int | None:
        """The characters of a line; None if there is no limit."""
        return self.width if self.is_terminal or os.environ.get("COLUMNS", "").isdigit() else None

    def show(self, sheet: Sheet) -> None:
        """Print a table."""
        for style, line in sheet.lines(self.room):
            self.print(line, style=style, soft_wrap=True)

    def say(self, *lines: str, indent: str = "") -> None:
        """Print sentences, each on lines of its own; lines that continue one begin with `indent`."""
        for line in lines:
            for part in wrapped(line, self.room, indent) or [""]:
                self.print(part, soft_wrap=True)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print facts, each as a name and a value; a name of "" continues the fact before it."""
        width = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self.say(f"{name:<{width}}{value}", indent=" " * width)


def machine(results: Sequence[Result]) -> str:
    """Return the CPU and the versions that the results come from."""
    versions: dict[str, str] = {}
    for result in results:
        versions.update(result.versions)
    return f"{results[0].cpu}; " + ", ".join(f"{name} {number}" for name, number in versions.items())


def step_table(title: str, results: Sequence[StepResult], varying: str = "") -> Sheet:
    """Return a table of training steps; `varying` names the size in which they differ."""
    varied = [varying] if varying and varying != "threads" else []
    fastest: dict[Any, float] = {}
    for result in results:
        value = getattr(result, varying) if varying else None
        fastest[value] = min(fastest.get(value, result.ms_median), result.ms_median)
    rows = []
    for result in results:
        least = fastest[getattr(result, varying) if varying else None]
        rows.append([
            *(f"{getattr(result, name):,}" for name in varied), result.backend, str(result.threads),
            measured(result.ms_median), span(result.ms_p20, result.ms_p80), compared(result.ms_median, least),
            f"{result.tokens_per_s:,.0f}", f"{result.gflops:.1f}", f"{result.fraction_of_peak:.1%}",
            f"{result.peak_rss_mb:,.0f}", measured(1e3 * result.first_step_s),
        ])  # fmt: skip
    columns = ["threads", "time/step", "p20 - p80", "compared", "tokens/s", "GFLOP/s", "of peak", "MB", "first step"]
    droppable = ["first step", "GFLOP/s", "p20 - p80", "MB", "of peak", "tokens/s", "threads", "compared"]
    return make_table(title, [*varied, "backend"], columns, rows, droppable, ["backend"])


def compared(ms: float, least: float) -> str:
    """Return how much longer something takes than the fastest, in words."""
    return "fastest" if ms <= least else f"{number(ms / least)}x as long"


def context_table(results: Sequence[StepResult]) -> Sheet:
    """Return a table of training steps over the context length, with the memory of each."""
    first, rows = results[0], []
    for result in results:
        rows.append([
            result.backend, f"{result.ctx:,}", measured(result.ms_median), span(result.ms_p20, result.ms_p80),
            measured(1e3 / result.tokens_per_s), f"{result.tokens_per_s:,.0f}", f"{result.fraction_of_peak:.1%}",
            number(result.over_bare_mb), number(result.peak_rss_mb),
        ])  # fmt: skip
    title = (f"A training step over the context length: dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, {counted(first.threads, 'thread')}, {first.dtype}")  # fmt: skip
    columns = ["ctx", "time/step", "p20 - p80", "time/token", "tokens/s", "of peak", "MB", "MB of process"]
    droppable = ["MB of process", "p20 - p80", "of peak", "tokens/s", "time/token"]
    return make_table(title, ["backend"], columns, rows, droppable, ["backend"])


KERNEL_COLUMNS = ("threads", "time", "p20 - p80", "GFLOP/s", "GB/s", "of peak", "of roof", "bound by", "MB",
                  "first call")  # fmt: skip
KERNELS_DROP = ("first call", "MB", "p20 - p80", "of peak", "threads", "GB/s", "bound by", "GFLOP/s")


def kernel_table(title: str, results: Sequence[KernelResult]) -> Sheet:
    """Return a table with a block for each kernel and size, with a line per backend."""
    blocks: dict[str, list[list[str]]] = {}
    for result in results:
        heading = (f"{result.kernel}  {result.size}: {number(result.flops / 1e6)} MFLOP, "
                   f"{number(result.bytes / 1e6)} MB, {number(result.intensity)} FLOP/byte")  # fmt: skip
        blocks.setdefault(heading, []).append([
            f"  {result.backend}", str(result.threads), measured(result.ms_median),
            span(result.ms_p20, result.ms_p80), number(result.gflops), number(result.gbytes_per_s),
            f"{result.fraction_of_peak:.1%}", f"{result.fraction_of_roof:.0%}", result.bound,
            number(result.peak_rss_mb), measured(1e3 * result.first_call_s),
        ])  # fmt: skip
    return Sheet(title, [""], KERNEL_COLUMNS, blocks, KERNELS_DROP)


def kernel_notes(results: Sequence[KernelResult]) -> list[str]:
    """Explain the columns."""
    return [
        f"Peak: {peaks(results)}, the most that the vector units reached in this run. Roof: the peak, or what the "
        "memory or cache that holds the kernel's arrays can feed, measured in the same run.",
        "MB: the peak memory of the process. First call: includes compilation and is excluded from the times.",
    ]


def pair_table(found: Sequence[Pair]) -> Sheet:
    """Return a table that compares two files of results."""
    blocks: dict[str, list[list[str]]] = {}
    for pair in found:
        blocks.setdefault(shown(pair.what), []).append([
            f"  {shown(pair.who)}", measured(pair.a["ms_median"]), measured(pair.b["ms_median"]), f"{pair.ratio:.2f}",
            f"{pair.a['fraction_of_peak']:.1%}", f"{pair.b['fraction_of_peak']:.1%}",
        ])  # fmt: skip
    columns = ("a", "b", "a/b", "a of its peak", "b of its peak")
    title = "Two files of results; b is faster where a/b is above 1"
    return Sheet(title, [""], columns, blocks, ("b of its peak", "a of its peak"))


def number(value: float) -> str:
    """Return a number with three significant digits: 0.0123, 1.23, 12.3, 1,230."""
    if value >= 99.95:
        return f"{value:,.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    if value >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


UNITS = ((1e-6, "ns"), (1e-3, "µs"), (1.0, "ms"), (1e3, "s"))


def _unit(ms: float) -> tuple[float, str]:
    """Return the unit in which so many milliseconds are below a thousand."""
    return next((unit for unit in UNITS if ms < 999.5 * unit[0]), UNITS[-1])


def measured(ms: float) -> str:
    """Return a measured time in one unit, with three significant digits: 850 ns, 12.3 µs, 1.23 ms, 51.2 s."""
    size, unit = _unit(ms)
    return f"{number(ms / size)} {unit}"


def span(low: float, high: float) -> str:
    """Return two times in milliseconds as a range, in one unit."""
    size, unit = _unit(high)
    return f"{number(low / size)} - {number(high / size)} {unit}"


def save(config: Any, results: Sequence[Result]) -> None:
    """Save the results to the requested files."""
    if config.json:
        append_json(config.json, results)
    if getattr(config, "csv", ""):
        append_csv(config.csv, results)


def write_picture(console: FittedConsole, path: str, data: bytes) -> None:
    """Write a picture and print its path. Raises UserError if it cannot be written."""
    if path == STANDARD:
        write_to_standard_output(data)
        return
    target = Path(os.path.realpath(path))  # keep a symbolic link
    if target.is_file() or not target.exists():
        write_atomically(target, data)
    else:  # a pipe, a device
        with writing(target):
            target.write_bytes(data)
    console.say(path)


def default_picture(run: str, name: str) -> str:
    """Return where a picture is written that has no name: into the folder of the run that is measured, or, if it is no
    run that is measured, into the folder of all runs."""
    folder = Path(run or RUNS)
    return str((folder.parent if folder.is_file() else folder) / name)


def draw(console: FittedConsole, path: str, figure: Callable[[], Any]) -> None:
    """Draw and write a picture that illustrates results. One that fails is a note, because the results are there."""

    def picture() -> bytes:
        from ..canvas import rendered

        return rendered(figure(), picture_format(path))

    data = drawn(path, picture, lambda text: console.say(f"note: {text}"))
    if data is None:
        return
    try:
        if path != STANDARD:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_picture(console, path, data)
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        console.say(f"note: {path} cannot be written: {reason(error)}.")


def console_beside(*paths: str) -> FittedConsole:
    """Return the console for words beside files: standard error, if one of the files is standard output."""
    return FittedConsole(stderr=STANDARD in paths)


def show_and_save(
    console: FittedConsole, config: BenchKernelsConfig | ProfileKernelConfig, results: Sequence[KernelResult]
) -> None:
    """Show kernels as a table, and save them to the requested files."""
    console.show(kernel_table(f"Kernels, {config.dtype}, caches {'cold' if config.cold else 'warm'}", results))
    console.say(*kernel_notes(results), machine(results))
    save(config, results)
