"""Pictures of measurements: growing sizes, and kernels under the roofs of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..plots import DPI
from .results import KernelResult, StepResult
from .stopwatch import EVICT_BYTES

# Okabe & Ito's colours, told apart with any colour vision; and a marker for each, for print
LOOKS = {
    "numpy": ("#0072B2", "o"), "numba": ("#D55E00", "s"), "torch-eager": ("#009E73", "^"),
    "torch-compile": ("#CC79A7", "D"), "torch-bf16": ("#E69F00", "v"), "numba --recompute": ("#000000", "P"),
}  # fmt: skip
UNITS = {"ctx": "context length (tokens)", "threads": "threads", "batch": "batch (sequences)", "dim": "channels (dim)"}
Box = tuple[float, float, float, float]  # left, bottom, right, top on the page
LABEL = 8.5  # points of type beside a point
DISTANCE = 7  # points between a mark and its label
FAR = 3 * DISTANCE  # from here on a line leads to it


def draw_scaling(results: Sequence[StepResult], over: str) -> Figure:
    """Time of a step, and fraction of the peak, over a size; a band from the 20th to the 80th percentile."""
    figure = Figure(figsize=(10, 4.6), dpi=DPI, layout="constrained")
    times, fractions = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        colour, marker = LOOKS[name]
        own = sorted((r for r in results if r.backend == name), key=lambda r: int(getattr(r, over)))
        xs = [getattr(r, over) for r in own]
        times.fill_between(xs, [r.ms_p20 for r in own], [r.ms_p80 for r in own], color=colour, alpha=0.2, linewidth=0)
        times.plot(xs, [r.ms_median for r in own], color=colour, marker=marker, label=name)
        fractions.plot(xs, [100 * r.fraction_of_peak for r in own], color=colour, marker=marker, label=name)
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
    times.set(title="Time of a step", ylabel="ms a step (median, 20th to 80th percentile)")
    fractions.set(title="Share of the machine's arithmetic", ylabel="% of the measured FMA peak")
    fractions.set_ylim(0, max(5.0, *(118 * r.fraction_of_peak for r in results)))
    times.legend()
    first = results[0]
    fixed = [f"{name} {getattr(first, name)}" for name in ("ctx", "dim", "layers", "heads", "batch", "threads")
             if name != over]  # fmt: skip
    figure.suptitle(f"A training step over {UNITS[over]}\n{', '.join(fixed)}, {first.dtype}; {first.cpu}", fontsize=11)
    return figure


def draw_contexts(results: Sequence[StepResult]) -> Figure:
    """Memory of a training step, and time of a token, over the length of the context."""
    figure = Figure(figsize=(10, 4.6), dpi=DPI, layout="constrained")
    memory, times = figure.subplots(1, 2)
    for name in dict.fromkeys(result.backend for result in results):
        colour, marker = LOOKS[name]
        own = sorted((r for r in results if r.backend == name), key=lambda r: r.ctx)
        style = "--" if "recompute" in name else "-"
        xs = [r.ctx for r in own]
        memory.plot(xs, [r.over_bare_mb for r in own], style, color=colour, marker=marker, label=name)
        times.plot(xs, [1e3 / r.tokens_per_s for r in own], style, color=colour, marker=marker, label=name)
    values = sorted({r.ctx for r in results})
    for axes in (memory, times):
        axes.set_xscale("log", base=2)
        if axes.dataLim.max[1] > 0:  # a step of a small model may take no page that the process did not have
            axes.set_yscale("log")
        axes.set_xticks(values, [f"{value:,}" for value in values], rotation=30 if len(values) > 5 else 0)
        low, high = axes.get_ylim()
        if high > 200 * low:  # else a few numbers between the powers of ten help
            axes.minorticks_off()
        axes.set_xticks([], minor=True)
        _plain_ticks(axes)
        axes.set_xlabel(UNITS["ctx"])
        axes.grid(alpha=0.25)
    memory.set(title="Memory of training", ylabel="MB over the process without the model")
    times.set(title="Time", ylabel="ms a token of a training step")
    handles, labels = memory.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    first = results[0]
    fixed = ", ".join(f"{name} {getattr(first, name)}" for name in ("dim", "layers", "heads", "batch", "threads"))
    figure.suptitle(f"Training as the context grows\n{fixed}, {first.dtype}; {first.cpu}", fontsize=11)
    return figure


def _plain_ticks(axes: Any) -> None:
    """Numbers, not powers of ten."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:.0e}"[0] in "25" else "")


def draw_roofline(results: Sequence[KernelResult]) -> Figure:
    """GFLOP/s over arithmetic intensity (Williams et al. 2009), each kernel a labelled point under measured roofs."""
    figure = Figure(figsize=(9.5, 6.2) if len(results) <= 16 else (12.5, 8.5), dpi=DPI, layout="constrained")
    figure.set_canvas(FigureCanvasAgg(figure))
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    ridge = min(r.peak_gflops / r.peak_gbytes_per_s for r in results)  # left of it, memory is the roof
    left = min(*(r.intensity for r in results), ridge) / 2.5
    right = max(*(r.intensity for r in results), 20.0) * 5
    _roofs(axes, results, left, right)
    points = []
    for name in dict.fromkeys(r.backend for r in results):
        colour, marker = LOOKS[name]
        own = [r for r in results if r.backend == name]
        xs, ys = [r.intensity for r in own], [r.gflops for r in own]
        axes.plot(xs, ys, marker, color=colour, markersize=7, label=name, zorder=3, linestyle="none")
        points += [(r.intensity, r.gflops, _short(r.kernel), colour) for r in own]
    highest = max(*(r.gflops for r in results), *(r.peak_gflops for r in results))
    axes.set_xlim(left, right)
    axes.set_ylim(min(*(r.gflops / 2.5 for r in results), highest / 50), highest * 2.2)
    axes.set(xlabel="arithmetic intensity (FLOP / byte)", ylabel="GFLOP/s")
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_formatter(lambda value, _: "")
    first = results[0]
    threads = f"{first.threads} thread{'s' if first.threads != 1 else ''}"
    axes.set_title(f"Kernels under measured roofs: {first.dtype}, {threads}, caches {'cold' if first.cold else 'warm'}"
                   f"\n{first.cpu}", fontsize=11)  # fmt: skip
    axes.legend(loc="lower right")
    _label(figure, axes, points)
    return figure


def _short(kernel: str) -> str:
    return kernel.replace("_forward", " fwd").replace("_backward", " bwd").replace("_", " ")


def _roofs(axes: Any, results: Sequence[KernelResult], left: float, right: float) -> None:
    """The peak of the vector units, and the bandwidths measured at the sizes of the kernels: the least and the most."""
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


def _label(figure: Figure, axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """A label beside each point, at the first place where it covers no other label and no point; further and further
    away, with a line to its point, where there is none beside it."""
    figure.draw_without_rendering()  # so that places on the page are known
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    centres = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [(cx - 5 * scale, cy - 5 * scale, cx + 5 * scale, cy + 5 * scale) for cx, cy in centres]
    taken += [_box(text.get_window_extent(renderer)) for text in axes.texts]
    for line in axes.lines:
        if line.get_linestyle() != "None":  # a roof
            (x0, y0), (x1, y1) = axes.transData.transform(line.get_xydata())
            along = np.linspace((x0, y0), (x1, y1), 200)
            taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in along]
    taken.append(_box(axes.get_legend().get_window_extent(renderer)))
    frame = _box(axes.get_window_extent(renderer))
    for (x, y, text, colour), (cx, cy) in sorted(zip(points, centres, strict=True), key=lambda p: -p[1][1]):
        sample = axes.text(0, 0, text, fontsize=LABEL)
        extent = sample.get_window_extent(renderer)
        sample.remove()
        places = list(_places(cx, cy, extent.width, extent.height, scale))
        for (dx, dy, box), lines_too in [*((place, True) for place in places), *((place, False) for place in places)]:
            leader = _line(cx, cy, box) if abs(dx) + abs(dy) > FAR else []
            inside = box[0] > frame[0] and box[1] > frame[1] and box[2] < frame[2] and box[3] < frame[3]
            own = (cx - 6 * scale, cy - 6 * scale, cx + 6 * scale, cy + 6 * scale)  # a line may leave its own point
            parts = [box, *(leader if lines_too else ())]
            covered = any(
                _overlap(part, other) for part in parts for other in taken if part is box or not _overlap(own, other)
            )
            if inside and not covered:
                break
        else:
            continue  # nowhere: better no label than one over another
        taken += [box, *leader]
        axes.annotate(
            text, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=LABEL, color=colour,
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            va="bottom" if dy > 0 else "top" if dy < 0 else "center", zorder=4,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7} if leader else None,
        )  # fmt: skip


def _places(cx: float, cy: float, width: float, height: float, scale: float) -> Any:
    """Offsets in points, nearest first, with the box on the page that a label would take there."""
    for distance in (DISTANCE, 14, 24, 36, 50, 70, 95, 125, 160, 200, 250, 310):
        for sx, sy in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            dx, dy = sx * distance, sy * distance
            x0 = cx + dx * scale - (width if sx < 0 else width / 2 if sx == 0 else 0)
            y0 = cy + dy * scale - (height if sy < 0 else height / 2 if sy == 0 else 0)
            yield dx, dy, (x0 - 1, y0 - 1, x0 + width + 1, y0 + height + 1)


def _line(cx: float, cy: float, box: Box) -> list[Box]:
    """Small boxes along the line from a point to its label."""
    x, y = min(max(cx, box[0]), box[2]), min(max(cy, box[1]), box[3])
    places = [(cx + s / 24 * (x - cx), cy + s / 24 * (y - cy)) for s in range(3, 23)]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in places]


def _box(extent: Any) -> Box:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
