"""Time single kernels and compare them with the limits of the machine: `bench kernels` and `profile KERNEL`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..backends import default_threads
from ..errors import StoppedRun
from ..machine import cpu_name, refuse_too_large
from ..reporter import Progress
from .competitor import Competitor, as_request
from .kernel_jobs import Job
from .own_kernel import PROCESS
from .results import KernelResult, today
from .roofline import Roofs
from .stopwatch import Rules, Summary
from .turns import interleaved


@dataclass(frozen=True)
class Timing:
    """The times of one job on one backend. `facts`: `peak_rss_mb` and `versions` of its process."""

    job: Job
    backend: str
    threads: int
    times: Summary
    first_s: float
    facts: dict[str, Any]


def measure(
    jobs: Sequence[Job], backends: Sequence[str], threads: Sequence[int], dtype: str, rules: Rules,
    progress: Progress | None = None,
) -> list[KernelResult]:  # fmt: skip
    """Time each job on each backend and number of threads, in turns, after checking that the backends agree.

    Raises UserError for what cannot run here, StoppedRun if the backends disagree.
    """
    progress = progress or Progress()
    counts = list(dict.fromkeys(threads)) or [default_threads()]
    for one in jobs:
        refuse_too_large(one.memory([*dict.fromkeys(backends)] * len(counts), dtype), f"Timing {one.operation}")
    measured: list[Timing] = []
    with contextlib.ExitStack() as processes:
        progress.stage("Measuring the limits of this machine")
        probes = {count: processes.enter_context(Competitor("peak", count)) for count in counts}
        roofs = {count: Roofs(probe, dtype, rules.cold) for count, probe in probes.items()}
        competitors = {
            (name, count): processes.enter_context(Competitor(name, count))
            for count in counts
            for name in dict.fromkeys(backends)
        }
        helpers = {
            count: processes.enter_context(Competitor(PROCESS, count)) for count in counts if any(j.own for j in jobs)
        }
        for number, one in enumerate(jobs):
            progress.part(number, len(jobs), f"{number + 1} of {len(jobs)}, {one.operation} {one.size}")
            request = {"operation": one.operation, "dims": dict(one.dims), "given": list(one.given),
                       "options": dict(one.options), "dtype": dtype}  # fmt: skip
            verdict = probes[counts[0]].ask("agree", **request)
            if not verdict["ok"]:
                raise StoppedRun(f"The backends disagree, so nothing was timed: {verdict['worst']}.")
            entered = competitors | _own(one, helpers, request)
            first = {}
            for key, competitor in entered.items():
                own = {"own": asdict(one.own)} if one.own and competitor in helpers.values() else {}
                answer = competitor.ask("kernel", rules=as_request(rules), **own, **request)
                first[key] = answer["first_call_s"]
            times = interleaved(entered, rules, progress).times
            for roof in roofs.values():
                roof.measure(one.cost(dtype).working_set)
            for (name, count), summary in times.items():
                facts = entered[name, count].ask("facts")
                measured.append(Timing(one, name, count, summary, first[name, count], facts))
        # only now are the roofs known: they are the highest of the run
        return [_result(timing, dtype, roofs[timing.threads], rules.cold) for timing in measured]


def _own(
    one: Job, helpers: Mapping[int, Competitor], request: dict[str, Any]
) -> dict[tuple[str, int], Competitor]:
    """Return the processes that run the user's kernel of a job, if it has one, after comparing it with NumPy's.

    Raises StoppedRun if it differs.
    """
    found: dict[tuple[str, int], Competitor] = {}
    for count, helper in helpers.items() if one.own else ():
        assert one.own is not None
        helper.name = one.own.label
        verdict = helper.ask("agree", own=asdict(one.own), **request)
        if not verdict["ok"]:
            raise StoppedRun(f"{one.own.label} differs from numpy, so nothing was timed: {verdict['worst']}.")
        found[one.own.label, count] = helper
    return found


def _result(timing: Timing, dtype: str, roofs: Roofs, cold: bool) -> KernelResult:
    one, times, facts = timing.job, timing.times, timing.facts
    cost = one.cost(dtype)
    bandwidth = roofs.gbytes_per_s(cost.working_set)
    gflops, fed = cost.flops / times.median, cost.intensity * bandwidth
    roof = min(roofs.gflops, fed)
    return KernelResult(
        kernel=one.operation, backend=timing.backend, threads=timing.threads, dtype=dtype, size=one.size,
        dims=dict(one.dims), ms_median=times.median / 1e6, ms_p20=times.p20 / 1e6, ms_p80=times.p80 / 1e6,
        flops=cost.flops, bytes=cost.bytes, intensity=cost.intensity, gflops=gflops,
        gbytes_per_s=cost.bytes / times.median, peak_gflops=roofs.gflops, peak_gbytes_per_s=bandwidth,
        roof_gflops=roof, fraction_of_peak=gflops / roofs.gflops, fraction_of_roof=gflops / roof,
        bound="compute" if fed >= roofs.gflops else "memory", first_call_s=timing.first_s, cold=cold,
        triad_bytes=float(roofs.triad_bytes(cost.working_set)), peak_rss_mb=facts["peak_rss_mb"],
        versions=facts["versions"], cpu=cpu_name(), date=today(),
    )  # fmt: skip
