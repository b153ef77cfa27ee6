"""`bevia-fast profile`: kernels compared with the limits of the machine, or a step broken down."""

from __future__ import annotations

import json
from typing import Any

from ..errors import UserError
from ..files import check_writable
from ..measuring.options import ProfileKernelConfig, ProfileStepConfig
from ..measuring.results import KernelResult, check_results_files, write_json
from ..measuring.roofline import Bound
from ..measuring.step_profile import NARROW, StepProfile
from ..measuring.step_profile import profile_step as take_apart
from ..measuring.step_summary import as_object, by_kernel, by_place
from ..measuring.stopwatch import Rules
from ..measuring.trace import trace_events
from .progress import progress
from .tables import WideConsole, make_table, number, show_and_save, write_picture


def profile_step(config: ProfileStepConfig) -> int:
    """Break a training step down, print it, and write files if requested; return the exit code."""
    check_writable(config.trace, config.json)
    with progress() as shown:
        profile = take_apart(config, shown)
    console, size = WideConsole(), profile.size
    title = (f"A training step by kernel: ctx {size.ctx}, dim {size.dim}, layers {size.layers}, heads {size.heads}, "
             f"batch {size.batch}, vocab {size.vocab}, {size.dtype}; {profile.kernels}")  # fmt: skip
    rows = []
    for row in by_kernel(profile):
        figures = [
            str(row["launches"]), *map(number, (row["gflops"], row["gbytes_per_s"], row["bound_ms"])), row["bound"],
            f"{row['of_bound']:.0%}",
        ] if row["launches"] else [""] * 6  # fmt: skip
        rows.append([row["kernel"], row["weight"], figures[0], number(row["ms"]), f"{row['share']:.1%}", *figures[1:]])
    bound = Bound.sum(profile.bounds).ns
    rows.append(["total", "", str(len(profile.calls)), number(profile.whole / 1e6), "100.0%", "", "",
                 number(bound / 1e6), "", f"{bound / profile.whole:.0%}"])  # fmt: skip
    columns = ["launches", "ms", "share", "GFLOP/s", "GB/s", "bound ms", "by", "of bound"]
    console.show(make_table(title, ["kernel", "weight"], columns, rows))
    rows = [
        [row["place"], *(number(row[phase]) if row[phase] else "" for phase in ("forward", "backward")),
         number(row["ms"]), f"{row['share']:.1%}"]
        for row in by_place(profile)
    ]  # fmt: skip
    console.show(make_table("By layer", ["layer"], ["forward ms", "backward ms", "ms", "share"], rows))
    for line in notes(profile):
        console.print(line, soft_wrap=True)
    if config.json:
        write_json(config.json, as_object(profile))
    if config.trace:
        try:
            with open(config.trace, "w", encoding="utf-8") as file:
                json.dump(trace_events(profile), file)
        except OSError as error:
            raise UserError(f"Cannot write {config.trace}: {error.strerror}.") from None
        console.print(f"{config.trace}: open it at https://ui.perfetto.dev or https://speedscope.app", soft_wrap=True)
    return 0


def notes(profile: StepProfile) -> list[str]:
    """Explain the columns, and how reliable the figures are."""
    plain, noted = profile.plain.median / 1e6, profile.noted.median / 1e6
    slowdown, coverage = profile.slowdown, profile.coverage
    found = [
        "Bound: the least time that the calls can take: their arithmetic at the "
        f"{profile.peak_gflops:.0f} GFLOP/s that the vector units reached in this run, or their bytes at the rate of a "
        "triad over as many bytes, in cache or in memory, whichever is longer.",
        f"{profile.steps} steps were measured, each next to one without instruments: {number(noted)} and "
        f"{number(plain)} ms. Intervals are at 95 %.",
        f"The parts add up to {profile.covered.median:.2%} of the same steps timed as a whole, and to "
        f"{coverage.median:.1%} of the steps without instruments ({coverage.low:.1%} to {coverage.high:.1%}).",
        f"Measuring slows a step by {slowdown.median - 1:+.1%} ({slowdown.low - 1:+.1%} to {slowdown.high - 1:+.1%}); "
        f"the instruments alone cost {profile.instruments:.2%} of a step.",
        f"The first step, including compilation, took {profile.first_s:.1f} s and is excluded.",
    ]
    if slowdown.width > NARROW:
        found.append("The machine was too busy for narrower intervals; measure when it is idle or with more --seconds.")
    return found


def profile_kernels(config: ProfileKernelConfig) -> int:
    from ..measuring.kernel_jobs import profile_jobs
    from ..measuring.kernel_times import measure

    console = WideConsole()
    if config.asm:
        from .hot_loops import show_asm

        return show_asm(config, console)
    jobs = profile_jobs(config)
    check_results_files(config.json, "", KernelResult)
    check_writable(config.out)
    rules = Rules(seconds=config.seconds, cold=config.cold)
    threads = [config.threads] if config.threads else []
    with progress() as shown:
        results = measure(jobs, config.backend, threads, config.dtype, rules, shown)
    show_and_save(console, config, results)

    def draw() -> bytes:
        from ..measuring.pictures import draw_roofline
        from ..plots import png

        return png(draw_roofline(results))

    write_picture(console, config.out, draw)
    return 0


def profile_list() -> int:
    from ..kernels.contract import OPERATIONS
    from ..measuring.kernel_jobs import families, formula_cost

    rows = []
    for family, names in families().items():
        for name in names:
            rows.append([family, name, OPERATIONS[name].doc.splitlines()[0].strip(), *formula_cost(OPERATIONS[name])])
    console = WideConsole()
    console.show(make_table("Kernels; flops and bytes are for the laptop preset", ["name", "operation", "formula"],
                            ["flops", "bytes"], rows))  # fmt: skip
    return 0


def run(config: Any) -> int:
    """Run the configuration of a `profile` command; return the exit code."""
    if isinstance(config, ProfileStepConfig):
        return profile_step(config)
    return profile_kernels(config) if isinstance(config, ProfileKernelConfig) else profile_list()
