"""The picture that compares runs: the losses of each in a color of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .canvas import fixed_style, fold, legend_below
from .errors import counted, shown
from .plots import Picture, is_finite, smoothed

# Okabe & Ito, without yellow, which is too light for a line on white
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":", "-.")  # of the validation losses: one for each time that the colors have been used up
NOISY = 100  # records, from which on the training loss is smoothed
LABELS = {"steps": "step", "tokens": "tokens trained on", "minutes": "minutes of training steps"}
MOST_NAMES = 4  # in the title; the legend has all


@dataclass(frozen=True)
class Curve:
    """The losses of one run: `x`, `training` and `validation` have an element for each record, None for a loss that the
    record does not have."""

    name: str
    x: Sequence[float]
    training: Sequence[float | None]
    validation: Sequence[float | None]

    def points(self, losses: Sequence[float | None]) -> list[tuple[float, float]]:
        """Return (x, loss) of the records that have a finite loss."""
        return [(x, loss) for x, loss in zip(self.x, losses, strict=True) if loss is not None and is_finite(loss)]


@fixed_style()
def draw_runs(
    curves: Sequence[Curve], axis: str, subtitle: str = "", unit: str = "nats per character"
) -> Picture:
    """Draw training and validation losses of runs over the `axis`, one of LABELS. The legend stands below the axes.

    `unit` is that of the losses.
    """
    figure = Picture(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        color, name = COLORS[number % len(COLORS)], shown(curve.name, 60)
        training, validation = curve.points(curve.training), curve.points(curve.validation)
        label = name
        if validation:
            x, losses = zip(*validation, strict=True)
            axes.plot(x, losses, color=color, linewidth=1.6, linestyle=STYLES[number // len(COLORS) % len(STYLES)],
                      marker="o", markersize=4, label=f"{name}: {losses[-1]:.3f} at the end")  # fmt: skip
            label = "_"  # the run has its place in the legend
        if training:
            x, losses = zip(*training, strict=True)
            if len(losses) > NOISY:
                losses = tuple(smoothed(losses))
            axes.plot(x, losses, color=color, linewidth=0.9, alpha=0.6, label=label)
    named = ", ".join(shown(curve.name, 40) for curve in curves[:MOST_NAMES])
    others = len(curves) - MOST_NAMES
    title = f"Losses of {named}" + (f" and {counted(others, 'other run')}" if others > 0 else "")
    lines = "dots: validation; thin lines: training" + (", smoothed" if _any_noisy(curves) else "")
    text = "\n".join(fold(line, 7.5, 11) for line in (title, subtitle, lines) if line)
    axes.set_title(text, fontsize=11, parse_math=False)
    axes.set(xlabel=LABELS[axis], ylabel=f"loss ({unit})")
    if axis == "tokens":
        axes.xaxis.set_major_formatter(lambda value, _: in_short(value))
    axes.grid(alpha=0.25)
    legend_below(figure, axes)
    _keep_formulas_out(figure)
    return figure


def _any_noisy(curves: Sequence[Curve]) -> bool:
    return any(len(curve.points(curve.training)) > NOISY for curve in curves)


def in_short(value: float) -> str:
    """Return a number of tokens as an axis label: 500, 20k, 1.5M, 2G."""
    size, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= size),
                      (1.0, ""))  # fmt: skip
    return f"{value / size:.4g}{unit}" if math.isfinite(value) else ""


def _keep_formulas_out(figure: Any) -> None:
    """A run's name may have dollar signs, between which matplotlib would see a formula."""
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_parse_math(False)
