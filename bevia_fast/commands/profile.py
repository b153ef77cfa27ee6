"""`bevia-fast profile`: kernels compared with the limits of the machine, or a step broken down."""

from __future__ import annotations

import json
from typing import Any

from ..config import STANDARD
from ..files import check_writable, write_text
from ..measuring.options import ProfileKernelConfig, ProfileStepConfig
from ..measuring.results import KernelResult, check_results_files, extras, write_json
from ..measuring.roofline import Bound
from ..measuring.step_profile import NARROW, StepProfile
from ..measuring.step_profile import profile_step as take_apart
from ..measuring.step_summary import as_object, by_kernel, by_place
from ..measuring.stopwatch import Rules
from ..measuring.trace import trace_events
from .progress import progress
from .tables import (
    FittedConsole,
    console_beside,
    default_picture,
    draw,
    make_table,
    measured,
    number,
    show_and_save,
)


def profile_step(config: ProfileStepConfig) -> int:
    """Break a training step down, print it, and write files if requested; return the exit code."""
    check_writable(config.trace, config.json)
    with progress() as shown:
        profile = take_apart(config, shown)
    console, size = console_beside(config.trace, config.json), profile.size
    title = (f"A training step by kernel: ctx {size.ctx}, dim {size.dim}, layers {size.layers}, heads {size.heads}, "
             f"batch {size.batch}, vocab {size.vocab}{extras(as_object(profile))}, {size.dtype}; "
             f"{profile.kernels}")  # fmt: skip
    rows = []
    for row in by_kernel(profile):
        figures = [
            str(row["launches"]), *map(number, (row["gflops"], row["gbytes_per_s"])), measured(row["bound_ms"]),
            row["bound"], f"{row['of_bound']:.0%}",
        ] if row["launches"] else [""] * 6  # fmt: skip
        rows.append([row["kernel"], row["weight"], figures[0], measured(row["ms"]), f"{row['share']:.1%}",
                     *figures[1:]])  # fmt: skip
    bound = Bound.sum(profile.bounds).ns
    rows.append(["total", "", str(len(profile.calls)), measured(profile.whole / 1e6), "100.0%", "", "",
                 measured(bound / 1e6), "", f"{bound / profile.whole:.0%}"])  # fmt: skip
    columns = ["calls", "time", "share", "GFLOP/s", "GB/s", "bound", "by", "of bound"]
    droppable = ["GB/s", "by", "bound", "GFLOP/s", "calls", "of bound", "share", "weight"]
    console.show(make_table(title, ["kernel", "weight"], columns, rows, droppable, ["kernel"]))
    rows = [
        [row["place"], *(measured(row[phase]) if row[phase] else "" for phase in ("forward", "backward")),
         measured(row["ms"]), f"{row['share']:.1%}"]
        for row in by_place(profile)
    ]  # fmt: skip
    console.show(make_table("By layer", ["layer"], ["forward", "backward", "time", "share"], rows,
                            ["backward", "forward"]))  # fmt: skip
    console.say(*notes(profile))
    if config.json:
        write_json(config.json, as_object(profile))
    if config.trace:
        write_text(config.trace, json.dumps(trace_events(profile)) + "\n")
        where = "The trace" if config.trace == STANDARD else config.trace
        console.say(f"{where}: open it at https://ui.perfetto.dev or https://speedscope.app")
    return 0


def notes(profile: StepProfile) -> list[str]:
    """Explain the columns, and how reliable the figures are."""
    plain, noted = profile.plain.median / 1e6, profile.noted.median / 1e6
    slowdown, coverage = profile.slowdown, profile.coverage
    found = [
        "Bound: the least time that the calls can take: their arithmetic at the "
        f"{profile.peak_gflops:.0f} GFLOP/s that the vector units reached in this run, or their bytes at the rate of a "
        "triad over arrays as large as theirs, in cache or in memory, whichever is longer.",
        f"{profile.steps} steps were measured, each next to one without instruments: {measured(noted)} and "
        f"{measured(plain)}. Intervals are at 95 %.",
        f"The parts add up to {profile.covered.median:.2%} of the same steps timed as a whole, and to "
        f"{coverage.median:.1%} of the steps without instruments ({coverage.low:.1%} to {coverage.high:.1%}).",
        f"Measuring slows a step by {slowdown.median - 1:+.1%} ({slowdown.low - 1:+.1%} to {slowdown.high - 1:+.1%}); "
        f"the instruments alone cost {profile.instruments:.2%} of a step.",
        f"The first step, including compilation, took {measured(1e3 * profile.first_s)} and is excluded.",
    ]
    if slowdown.width > NARROW:
        found.append("The machine was too busy for narrower intervals; measure when it is idle or with more --seconds.")
    return found


def profile_kernels(config: ProfileKernelConfig) -> int:
    from ..measuring.kernel_jobs import profile_jobs
    from ..measuring.kernel_times import measure

    if config.asm:
        from .hot_loops import show_asm

        return show_asm(config, FittedConsole())
    out = config.out or default_picture("", "roofline.png")
    jobs = profile_jobs(config)
    check_results_files(config.json, "", KernelResult, config.out)
    rules = Rules(seconds=config.seconds, cold=config.cold)
    threads = [config.threads] if config.threads else []
    with progress() as shown:
        results = measure(jobs, config.backend, threads, config.dtype, rules, shown)
    console = console_beside(config.json, out)
    show_and_save(console, config, results)
    draw(console, out, lambda: _roofline(results))
    return 0


def _roofline(results: list[KernelResult]) -> Any:
    from ..measuring.pictures import draw_roofline  # imports matplotlib, which can fail

    return draw_roofline(results)


def profile_list() -> int:
    from ..kernels.contract import OPERATIONS
    from ..measuring.kernel_jobs import families, formula_cost

    rows = []
    for family, names in families().items():
        for name in names:
            rows.append([family, name, OPERATIONS[name].doc.splitlines()[0].strip(), *formula_cost(OPERATIONS[name])])
    console = FittedConsole()
    console.show(make_table("Kernels; flops and bytes are for the laptop preset", ["name", "operation", "formula"],
                            ["flops", "bytes"], rows, ["name", "bytes", "flops"], ["formula"]))  # fmt: skip
    return 0


def run(config: Any) -> int:
    """Run the configuration of a `profile` command; return the exit code."""
    if isinstance(config, ProfileStepConfig):
        return profile_step(config)
    return profile_kernels(config) if isinstance(config, ProfileKernelConfig) else profile_list()
