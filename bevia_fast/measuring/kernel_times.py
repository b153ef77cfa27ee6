"""Single kernels, timed and held against what the machine can do: for `bench kernels` and for `profile KERNEL`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from ..backends import default_threads
from ..errors import StoppedRun
from ..machine import cpu_name, refuse_too_large
from ..reporter import Progress
from .competitor import Competitor, as_request
from .kernel_jobs import Job
from .results import KernelResult, today
from .roofline import Roofs
from .stopwatch import Rules, Summary
from .turns import interleaved


def measure(
    jobs: Sequence[Job], backends: Sequence[str], threads: Sequence[int], dtype: str, rules: Rules,
    progress: Progress | None = None,
) -> list[KernelResult]:  # fmt: skip
    """Time each job on each backend and number of threads, in turns, after they have been seen to agree.

    Raises UserError for what cannot run here, StoppedRun where the backends disagree.
    """
    progress = progress or Progress()
    counts = list(dict.fromkeys(threads)) or [default_threads()]
    for one in jobs:
        refuse_too_large(one.memory([*dict.fromkeys(backends)] * len(counts), dtype), f"Timing {one.operation}")
    measured: list[tuple[Job, str, int, Summary, float, dict[str, Any]]] = []
    with contextlib.ExitStack() as processes:
        progress.stage("Measuring what this machine can do")
        probes = {count: processes.enter_context(Competitor("peak", count)) for count in counts}
        roofs = {count: Roofs(probe, dtype, rules.cold) for count, probe in probes.items()}
        competitors = {
            (name, count): processes.enter_context(Competitor(name, count))
            for count in counts
            for name in dict.fromkeys(backends)
        }
        for number, one in enumerate(jobs):
            progress.part(number, len(jobs), f"{number + 1} of {len(jobs)}, {one.operation} {one.size}")
            request = {"operation": one.operation, "dims": dict(one.dims), "given": list(one.given),
                       "options": dict(one.options), "dtype": dtype}  # fmt: skip
            verdict = probes[counts[0]].ask("agree", **request)
            if not verdict["ok"]:
                raise StoppedRun(f"The backends disagree, so nothing was timed: {verdict['worst']}.")
            first = {}
            for key, competitor in competitors.items():
                answer = competitor.ask("kernel", rules=as_request(rules), **request)
                first[key] = answer["first_call_s"]
            times = interleaved(competitors, rules, progress).times
            for roof in roofs.values():
                roof.measure(one.cost(dtype).bytes)
            for (name, count), summary in times.items():
                facts = competitors[name, count].ask("facts")
                measured.append((one, name, count, summary, first[name, count], facts))
        # at last, for the roofs are the highest of the run
        return [
            _result(one, name, count, dtype, summary, roofs[count], first_s, rules.cold, facts)
            for one, name, count, summary, first_s, facts in measured
        ]




def _result(
    one: Job, backend: str, threads: int, dtype: str, times: Summary, roofs: Roofs, first: float, cold: bool,
    facts: dict[str, Any],
) -> KernelResult:  # fmt: skip
    cost, bandwidth = one.cost(dtype), roofs.gbytes_per_s(one.cost(dtype).bytes)
    gflops, fed = cost.flops / times.median, cost.intensity * bandwidth
    roof = min(roofs.gflops, fed)
    return KernelResult(
        kernel=one.operation, backend=backend, threads=threads, dtype=dtype, size=one.size, dims=dict(one.dims),
        ms_median=times.median / 1e6, ms_p20=times.p20 / 1e6, ms_p80=times.p80 / 1e6, flops=cost.flops,
        bytes=cost.bytes, intensity=cost.intensity, gflops=gflops, gbytes_per_s=cost.bytes / times.median,
        peak_gflops=roofs.gflops, peak_gbytes_per_s=bandwidth, roof_gflops=roof,
        fraction_of_peak=gflops / roofs.gflops, fraction_of_roof=gflops / roof,
        bound="compute" if fed >= roofs.gflops else "memory", first_call_s=first, cold=cold,
        peak_rss_mb=facts["peak_rss_mb"], versions=facts["versions"], cpu=cpu_name(), date=today(),
    )  # fmt: skip


