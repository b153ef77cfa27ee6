"""Draw measurements: training steps as a size grows, and kernels under the roofs of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..canvas import Figure, FigureCanvasAgg, fixed_style, fold, label_log_axis, legend_below
from ..errors import counted
from ..machine import readable
from .labels import place_labels
from .results import KernelResult, StepResult

# The colors of Okabe & Ito, which are distinct with any color vision, and a marker for each, for black and white
LOOKS = {
    "numpy": ("#0072B2", "o"), "numba": ("#D55E00", "s"), "torch-eager": ("#009E73", "^"),
    "torch-compile": ("#CC79A7", "D"), "torch-bf16": ("#E69F00", "v"), "numba --recompute": ("#000000", "P"),
}  # fmt: skip
OWN = ("#56B4E9", "X")  # of a kernel of the user's
WINDOWED = (("#56B4E9", "<"), ("#882255", ">"))  # in every second layer, in all
UNITS = {"ctx": "context length (tokens)", "threads": "threads", "batch": "batch (sequences)", "dim": "channels (dim)"}


@fixed_style()
def draw_scaling(results: Sequence[StepResult], over: str, run: str = "") -> Figure:
    """Draw the time per step and the fraction of the peak over a size, with a band from the 20th to the 80th
    percentile. `run`: the name of the run whose sizes these are, if there is one."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    times, fractions = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        color, marker = LOOKS.get(name, OWN)
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
    times.set(title="Time per step", ylabel="ms per step (median, 20th to 80th percentile)")
    label_log_axis(times.yaxis, *times.get_ylim())
    fractions.set(title="Fraction of the machine's peak", ylabel="% of the measured peak of multiply-adds")
    fractions.set_ylim(0, max(5.0, *(118 * r.fraction_of_peak for r in results)))
    legend_below(figure, times)
    first = results[0]
    fixed = [f"{name} {getattr(first, name)}" for name in ("ctx", "dim", "layers", "heads", "batch", "threads")
             if name != over]  # fmt: skip
    _title(figure, f"A training step over {UNITS[over]}", ", ".join(fixed), first, run)
    return figure


def _title(figure: Figure, title: str, sizes: str, first: StepResult | KernelResult, run: str = "") -> None:
    """Title a picture with what was measured, on which machine, and when."""
    text = f"{f'{run}: ' if run else ''}{sizes}, {first.dtype}; {first.cpu}; {first.date}".rstrip("; ")
    figure.suptitle(f"{title}\n{fold(text, figure.get_figwidth(), 11)}", fontsize=11, parse_math=False)


@fixed_style()
def draw_contexts(results: Sequence[StepResult]) -> Figure:
    """Draw the memory of training and the time per token over the context length."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    memory, times = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        color, marker = WINDOWED["--window-layers" in name] if "--window" in name else LOOKS.get(name, OWN)
        own = sorted((r for r in results if r.backend == name), key=lambda r: r.ctx)
        style = "--" if "--" in name else "-"
        xs = [r.ctx for r in own]
        memory.plot(xs, [r.over_bare_mb for r in own], style, color=color, marker=marker, label=name)
        times.plot(xs, [1e3 / r.tokens_per_s for r in own], style, color=color, marker=marker, label=name)
    values = sorted({r.ctx for r in results})
    for axes in (memory, times):
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [f"{value:,}" for value in values], rotation=30 if len(values) > 5 else 0)
        axes.minorticks_off()
        if axes.dataLim.max[1] > 0:  # a small model may need no page beyond those that the process already has
            axes.set_yscale("log")
            label_log_axis(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel(UNITS["ctx"])
        axes.grid(alpha=0.25)
    memory.set(title="Memory for training", ylabel="MB in addition to the process without the model")
    times.set(title="Training time", ylabel="ms per token")
    legend_below(figure, memory)
    first = results[0]
    sizes = ", ".join(f"{name} {getattr(first, name)}" for name in ("dim", "layers", "heads", "batch", "threads"))
    _title(figure, "Training as the context grows", sizes, first)
    return figure


@fixed_style()
def draw_roofline(results: Sequence[KernelResult]) -> Figure:
    """Draw GFLOP/s over arithmetic intensity (Williams et al. 2009): a labeled point per kernel, under measured roofs.
    """
    figure = Figure(figsize=(9.5, 6.8) if len(results) <= 16 else (12.5, 9), layout="constrained")
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
        color, marker = LOOKS.get(name, OWN)
        own = [r for r in results if r.backend == name]
        xs, ys = [r.intensity for r in own], [r.gflops for r in own]
        axes.plot(xs, ys, marker, color=color, markersize=7, label=name, zorder=3, linestyle="none")
        points += [(r.intensity, r.gflops, _short(r.kernel), color) for r in own]
    highest = max(*(r.gflops for r in results), *(r.peak_gflops for r in results))
    axes.set_xlim(left, right)
    axes.set_ylim(min(*(r.gflops / 2.5 for r in results), highest / 50), highest * 2.2)
    axes.set(xlabel="arithmetic intensity (floating-point operations per byte)",
             ylabel="speed (billions of floating-point operations per second)")  # fmt: skip
    axes.grid(alpha=0.25, linewidth=0.5)
    label_log_axis(axes.xaxis, *axes.get_xlim())
    label_log_axis(axes.yaxis, *axes.get_ylim())
    first = results[0]
    how = f"{counted(first.threads, 'thread')}, caches {'cold' if first.cold else 'warm'}"
    _title(figure, "Kernels under the measured roofs of this machine", how, first)
    legend_below(figure, axes)
    place_labels(figure, axes, points)
    return figure


def _short(kernel: str) -> str:
    return kernel.replace("_forward", " fwd").replace("_backward", " bwd").replace("_", " ")


def _roofs(axes: Any, results: Sequence[KernelResult], left: float, right: float) -> None:
    """Draw the peak of the vector units, and the highest and lowest bandwidth measured for the kernels: of the fastest
    cache that holds the arrays of one of them, and of the slowest cache or of memory."""
    peak = max(r.peak_gflops for r in results)
    bandwidths = {r.peak_gbytes_per_s: r.triad_bytes for r in results}
    chosen = sorted({min(bandwidths), max(bandwidths)})
    if len(chosen) == 2 and chosen[1] < 1.5 * chosen[0]:
        chosen = chosen[:1]
    for bandwidth, style in zip(reversed(chosen), ("-", "--"), strict=False):
        ridge = peak / bandwidth
        xs = np.array([left, min(ridge, right)])
        axes.plot(xs, xs * bandwidth, style, color="0.35", linewidth=1.3, zorder=2,
                  label=f"{bandwidth:.0f} GB/s, a triad over {readable(bandwidths[bandwidth])} of arrays")  # fmt: skip
    start = min(peak / chosen[-1], right)
    axes.plot([start, right], [peak, peak], "-", color="0.35", linewidth=1.3, zorder=2)
    axes.annotate(f"{peak:.0f} GFLOP/s, multiply-adds in registers", (right, peak), xytext=(-4, 4), fontsize=9,
                  textcoords="offset points", ha="right", va="bottom", color="0.25")  # fmt: skip
