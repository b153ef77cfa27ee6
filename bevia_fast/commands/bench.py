"""`bevia-fast bench`: progress during the measurement, tables at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from ..errors import UserError
from ..errors import shown as printable
from ..files import check_writable
from ..measuring.options import (
    BenchCompareConfig,
    BenchContextsConfig,
    BenchKernelsConfig,
    BenchScalingConfig,
    BenchStepConfig,
)
from ..measuring.results import KernelResult, StepReport, StepResult, check_results_files, pairs, peaks, read_json
from ..measuring.stopwatch import Rules
from .progress import progress
from .tables import (
    WideConsole,
    context_table,
    machine,
    print_lines,
    save,
    show_and_save,
    show_pairs,
    step_table,
    write_picture,
)


def bench_step(config: BenchStepConfig) -> int:
    from ..measuring.step_times import bench_steps

    check_results_files(config.json, config.csv, StepResult)
    with progress() as shown:
        report = bench_steps(config, shown)
    console, first = WideConsole(), report.results[0]
    title = (f"A training step: ctx {first.ctx}, dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, vocab {first.vocab}")  # fmt: skip
    console.show(step_table(title, report.results))
    print_and_save(console, config, report)
    return 0


def print_and_save(console: Console, config: Any, report: StepReport, note: str = "") -> None:
    """Print the notes under a table of steps, and save the results."""
    reached = f"Peak: the vector units of this machine reached {peaks(report.results)} in this run."
    notes = dict.fromkeys(report.notes)  # several sizes may have the same note
    print_lines(console, [f"{report.checked}.", *notes, *filter(None, [note]), reached, machine(report.results)])
    save(config, report.results)


def bench_scaling(config: BenchScalingConfig) -> int:
    from ..measuring.step_times import bench_scaling as measure

    check_results_files(config.json, config.csv, StepResult)
    check_writable(config.out)
    with progress() as shown:
        report = measure(config, shown)
    console = WideConsole()
    console.show(step_table(f"A training step over {config.over}", report.results, config.over))
    print_and_save(console, config, report)

    def draw() -> bytes:
        from ..measuring.pictures import draw_scaling
        from ..plots import png

        return png(draw_scaling(report.results, config.over))

    write_picture(console, config.out, draw)
    return 0


def bench_contexts(config: BenchContextsConfig) -> int:
    from ..measuring.context_growth import bench_contexts as measure

    check_results_files(config.json, config.csv, StepResult)
    check_writable(config.out)
    with progress() as shown:
        report = measure(config, shown)
    console = WideConsole()
    console.show(context_table(report.results))
    note = "MB: the peak memory of the process, less what it had before the model was built."
    print_and_save(console, config, report, note)

    def draw() -> bytes:
        from ..measuring.pictures import draw_contexts
        from ..plots import png

        return png(draw_contexts(report.results))

    write_picture(console, config.out, draw)
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
        print_lines(console, [f"{name}: {path}, {', '.join(cpus)}"])
    if rest:
        console.print(f"{rest} measurement{'s are' if rest > 1 else ' is'} in only one of the files.")
    return 0


def bench_kernels(config: BenchKernelsConfig) -> int:
    from ..measuring.kernel_jobs import bench_jobs
    from ..measuring.kernel_times import measure

    check_results_files(config.json, config.csv, KernelResult)
    rules = Rules(turns=config.turns, seconds=config.seconds, cold=config.cold)
    with progress() as shown:
        results = measure(bench_jobs(config), config.backend, config.threads, config.dtype, rules, shown)
    show_and_save(WideConsole(), config, results)
    return 0


_RUNS: dict[type, Callable[[Any], int]] = {
    BenchStepConfig: bench_step,
    BenchKernelsConfig: bench_kernels,
    BenchScalingConfig: bench_scaling,
    BenchContextsConfig: bench_contexts,
    BenchCompareConfig: bench_compare,
}


def run(config: Any) -> int:
    """Run the configuration of a `bench` command; return the exit code."""
    return _RUNS[type(config)](config)
