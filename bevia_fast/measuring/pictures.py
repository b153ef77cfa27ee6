"""Draw measurements: training steps as a size grows, and kernels under the roofs of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import counted
from ..plots import DPI
from .labels import place_labels
from .results import KernelResult, StepResult
from .stopwatch import EVICT_BYTES

# The colors of Okabe & Ito, which are distinct with any color vision, and a marker for each, for black and white
LOOKS = {
    "numpy": ("#0072B2", "o"), "numba": ("#D55E00", "s"), "torch-eager": ("#009E73", "^"),
    "torch-compile": ("#CC79A7", "D"), "torch-bf16": ("#E69F00", "v"), "numba --recompute": ("#000000", "P"),
}  # fmt: skip
UNITS = {"ctx": "context length (tokens)", "threads": "threads", "batch": "batch (sequences)", "dim": "channels (dim)"}


def draw_scaling(results: Sequence[StepResult], over: str) -> Figure:
    """Draw the time per step and the fraction of the peak over a size, with a band from the 20th to the 80th
    percentile."""
    figure = Figure(figsize=(10, 4.6), dpi=DPI, layout="constrained")
    times, fractions = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        color, marker = LOOKS[name]
        own = sorted((r for r in results if r.backend == name), key=lambda r: int(getattr(r, over)))
        xs = [getattr(r, over) for r in own]
        times.fill_between(xs, [r.ms_p20 for r in own], [r.ms_p80 for r in own], color=color, alpha=0.2, linewidth=0)
        times.plot(xs, [r.ms_median for r in own], color=color, marker=marker, label=name)
        fractions.plot(xs, [100 * r.fraction_of_peak for r in own], color=color, marker=marker, label=name)
    values = sorted({int(getattr(r, over)) for r in results})
    for axes in (times, fractions):
        if over != "threads":
            axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.minorticks_off()
        axes.set_xlabel(UNITS[over])
        axes.grid(alpha=0.25)
    times.set_yscale("log")
    _plain_ticks(times)
    times.set(title="Time per step", ylabel="ms per step (median, 20th to 80th percentile)")
    fractions.set(title="Fraction of the machine's peak", ylabel="% of the measured FMA peak")
    fractions.set_ylim(0, max(5.0, *(118 * r.fraction_of_peak for r in results)))
    times.legend()
    first = results[0]
    fixed = [f"{name} {getattr(first, name)}" for name in ("ctx", "dim", "layers", "heads", "batch", "threads")
             if name != over]  # fmt: skip
    figure.suptitle(f"A training step over {UNITS[over]}\n{', '.join(fixed)}, {first.dtype}; {first.cpu}", fontsize=11)
    return figure


def draw_contexts(results: Sequence[StepResult]) -> Figure:
    """Draw the memory of training and the time per token over the context length."""
    figure = Figure(figsize=(10, 4.6), dpi=DPI, layout="constrained")
    memory, times = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        color, marker = LOOKS[name]
        own = sorted((r for r in results if r.backend == name), key=lambda r: r.ctx)
        style = "--" if "recompute" in name else "-"
        xs = [r.ctx for r in own]
        memory.plot(xs, [r.over_bare_mb for r in own], style, color=color, marker=marker, label=name)
        times.plot(xs, [1e3 / r.tokens_per_s for r in own], style, color=color, marker=marker, label=name)
    values = sorted({r.ctx for r in results})
    for axes in (memory, times):
        axes.set_xscale("log", base=2)
        if axes.dataLim.max[1] > 0:  # a small model may need no page beyond those that the process already has
            axes.set_yscale("log")
        axes.set_xticks(values, [f"{value:,}" for value in values], rotation=30 if len(values) > 5 else 0)
        low, high = axes.get_ylim()
        if high > 200 * low:  # otherwise a few labels between the powers of ten help
            axes.minorticks_off()
        axes.set_xticks([], minor=True)
        _plain_ticks(axes)
        axes.set_xlabel(UNITS["ctx"])
        axes.grid(alpha=0.25)
    memory.set(title="Memory for training", ylabel="MB in addition to the process without the model")
    times.set(title="Training time", ylabel="ms per token")
    handles, labels = memory.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    first = results[0]
    fixed = ", ".join(f"{name} {getattr(first, name)}" for name in ("dim", "layers", "heads", "batch", "threads"))
    figure.suptitle(f"Training as the context grows\n{fixed}, {first.dtype}; {first.cpu}", fontsize=11)
    return figure


def _plain_ticks(axes: Any) -> None:
    """Label an axis with numbers instead of powers of ten."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:.0e}"[0] in "25" else "")


def draw_roofline(results: Sequence[KernelResult]) -> Figure:
    """Draw GFLOP/s over arithmetic intensity (Williams et al. 2009): a labeled point per kernel, under measured roofs.
    """
    figure = Figure(figsize=(9.5, 6.2) if len(results) <= 16 else (12.5, 8.5), dpi=DPI, layout="constrained")
    figure.set_canvas(FigureCanvasAgg(figure))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    ridge = min(r.peak_gflops / r.peak_gbytes_per_s for r in results)  # to the left of it, memory is the roof
    left = min(*(r.intensity for r in results), ridge) / 2.5
    right = max(*(r.intensity for r in results), 20.0) * 5
    _roofs(axes, results, left, right)
    points = []
    for name in dict.fromkeys(r.backend for r in results):
        color, marker = LOOKS[name]
        own = [r for r in results if r.backend == name]
        xs, ys = [r.intensity for r in own], [r.gflops for r in own]
        axes.plot(xs, ys, marker, color=color, markersize=7, label=name, zorder=3, linestyle="none")
        points += [(r.intensity, r.gflops, _short(r.kernel), color) for r in own]
    highest = max(*(r.gflops for r in results), *(r.peak_gflops for r in results))
    axes.set_xlim(left, right)
    axes.set_ylim(min(*(r.gflops / 2.5 for r in results), highest / 50), highest * 2.2)
    axes.set(xlabel="arithmetic intensity (FLOP / byte)", ylabel="GFLOP/s")
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_formatter(lambda value, _: "")
    first = results[0]
    threads = counted(first.threads, "thread")
    axes.set_title(f"Kernels under measured roofs: {first.dtype}, {threads}, caches {'cold' if first.cold else 'warm'}"
                   f"\n{first.cpu}", fontsize=11)  # fmt: skip
    axes.legend(loc="lower right")
    place_labels(figure, axes, points)
    return figure


def _short(kernel: str) -> str:
    return kernel.replace("_forward", " fwd").replace("_backward", " bwd").replace("_", " ")


def _roofs(axes: Any, results: Sequence[KernelResult], left: float, right: float) -> None:
    """Draw the peak of the vector units, and the lowest and highest bandwidth measured at the sizes of the kernels."""
    peak = max(r.peak_gflops for r in results)
    bandwidths = {r.peak_gbytes_per_s: EVICT_BYTES if r.cold else min(r.bytes, EVICT_BYTES) for r in results}
    chosen = sorted({min(bandwidths), max(bandwidths)})
    if len(chosen) == 2 and chosen[1] < 1.5 * chosen[0]:
        chosen = chosen[:1]
    for bandwidth, style in zip(reversed(chosen), ("-", "--"), strict=False):
        ridge = peak / bandwidth
        xs = np.array([left, min(ridge, right)])
        axes.plot(xs, xs * bandwidth, style, color="0.35", linewidth=1.3, zorder=2,
                  label=f"{bandwidth:.0f} GB/s, triad over {_bytes(bandwidths[bandwidth])}")  # fmt: skip
    start = min(peak / chosen[-1], right)
    axes.plot([start, right], [peak, peak], "-", color="0.35", linewidth=1.3, zorder=2)
    axes.annotate(f"{peak:.0f} GFLOP/s, multiply-add in registers", (right, peak), xytext=(-4, 4), fontsize=9,
                  textcoords="offset points", ha="right", va="bottom", color="0.25")  # fmt: skip


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"
