"""`bevia-fast bench`: progress during the measurement, tables at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..errors import UserError, counted
from ..errors import shown as printable
from ..files import check_writable
from ..measuring.loss_options import BenchLossConfig
from ..measuring.options import (
    BenchCompareConfig,
    BenchContextsConfig,
    BenchKernelsConfig,
    BenchScalingConfig,
    BenchStepConfig,
)
from ..measuring.results import (
    KernelResult,
    StepReport,
    StepResult,
    check_results_files,
    extras,
    pairs,
    peaks,
    read_json,
    write_json,
)
from ..measuring.stopwatch import Rules
from .loss_table import loss_table
from .progress import progress
from .tables import (
    FittedConsole,
    console_beside,
    context_table,
    default_picture,
    draw,
    machine,
    pair_table,
    save,
    show_and_save,
    step_table,
)


def bench_step(config: BenchStepConfig) -> int:
    from ..measuring.step_times import bench_steps

    check_results_files(config.json, config.csv, StepResult)
    with progress() as shown:
        report = bench_steps(config, shown)
    console, first = console_beside(config.json, config.csv), report.results[0]
    title = (f"A training step: ctx {first.ctx}, dim {first.dim}, layers {first.layers}, heads {first.heads}, "
             f"batch {first.batch}, vocab {first.vocab}{extras(asdict(first))}")  # fmt: skip
    console.show(step_table(title, report.results))
    print_and_save(console, config, report)
    return 0


def print_and_save(console: FittedConsole, config: Any, report: StepReport, note: str = "") -> None:
    """Print the notes under a table of steps, and save the results."""
    reached = f"Peak: the vector units of this machine reached {peaks(report.results)} in this run."
    notes = dict.fromkeys(report.notes)  # several sizes may have the same note
    console.say(f"{report.checked}.", *notes, *filter(None, [note]), reached, machine(report.results))
    save(config, report.results)


def bench_scaling(config: BenchScalingConfig) -> int:
    from ..measuring.step_times import bench_scaling as measure

    out = config.out or default_picture(config.run, "scaling.png")
    check_results_files(config.json, config.csv, StepResult, config.out)
    with progress() as shown:
        report = measure(config, shown)
    console = console_beside(config.json, config.csv, out)
    console.show(step_table(f"A training step over {config.over}", report.results, config.over))
    print_and_save(console, config, report)
    draw(console, out, lambda: _pictures().draw_scaling(report.results, config.over, config.run))
    return 0


def bench_contexts(config: BenchContextsConfig) -> int:
    from ..measuring.context_growth import bench_contexts as measure

    out = config.out or default_picture("", "contexts.png")
    check_results_files(config.json, config.csv, StepResult, config.out)
    with progress() as shown:
        report = measure(config, shown)
    console = console_beside(config.json, config.csv, out)
    console.show(context_table(report.results))
    note = "MB: the peak memory of the process, less what it had before the model was built."
    print_and_save(console, config, report, note)
    draw(console, out, lambda: _pictures().draw_contexts(report.results))
    return 130 if report.interrupted else 0


def bench_compare(config: BenchCompareConfig) -> int:
    a, b = read_json(config.a), read_json(config.b)
    found, rest = pairs(a, b)
    if not found:
        raise UserError(f"{config.a} and {config.b} have no measurement in common.")
    console = FittedConsole()
    console.show(pair_table(found))
    for name, path, results in (("a", config.a, a), ("b", config.b, b)):
        cpus = dict.fromkeys(printable(f"{r['cpu']} ({r.get('date', '')})") for r in results)
        console.say(f"{name}: {path}, {', '.join(cpus)}")
    if rest:
        console.say(f"{rest} measurement{'s are' if rest > 1 else ' is'} in only one of the files.")
    return 0


def bench_kernels(config: BenchKernelsConfig) -> int:
    from ..measuring.kernel_jobs import bench_jobs
    from ..measuring.kernel_times import measure

    check_results_files(config.json, config.csv, KernelResult)
    rules = Rules(turns=config.turns, seconds=config.seconds, cold=config.cold)
    with progress() as shown:
        results = measure(bench_jobs(config), config.backend, config.threads, config.dtype, rules, shown)
    show_and_save(console_beside(config.json, config.csv), config, results)
    return 0


def bench_loss(config: BenchLossConfig) -> int:
    from ..measuring.loss_target import as_objects, peer_trains
    from ..measuring.loss_target import bench_loss as measure

    check_writable(config.json)
    with progress() as shown:
        results = list(measure(config, shown))
    console = console_beside(config.json)
    console.show(loss_table(config, results))
    console.say("Means over the seeds, and in brackets the least and the most. Only training steps are timed.")
    left_out = [name for name in dict.fromkeys(config.recipe) if not peer_trains(config.config(name, 1))]
    if config.peer and left_out:
        console.say(f"PyTorch trains recipes with AdamW and learned positions, so not {' and '.join(left_out)}.")
    console.say(f"{results[0].cpu}, {counted(results[0].threads, 'thread')}.")
    if config.json:
        write_json(config.json, as_objects(results))
    return 0


def _pictures() -> Any:
    """Return the module that draws; it imports matplotlib, which can fail."""
    from ..measuring import pictures

    return pictures


_RUNS: dict[type, Callable[[Any], int]] = {
    BenchStepConfig: bench_step,
    BenchKernelsConfig: bench_kernels,
    BenchScalingConfig: bench_scaling,
    BenchContextsConfig: bench_contexts,
    BenchLossConfig: bench_loss,
    BenchCompareConfig: bench_compare,
}


def run(config: Any) -> int:
    """Run the configuration of a `bench` command; return the exit code."""
    return _RUNS[type(config)](config)
