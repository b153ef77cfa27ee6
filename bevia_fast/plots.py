"""Pictures of a run: its losses, and the attention of its model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .canvas import (
    BLUE,
    DPI,
    VERMILLION,
    Figure,
    FontProperties,
    PowerNorm,
    ScalarMappable,
    findfont,
    fixed_style,
    fold,
    get_font,
    legend_below,
    rendered,
)
from .config import ModelConfig
from .errors import DataError, counted, shown
from .naming import option

Array = NDArray[Any]

CELL = 0.15  # inches of an attention map per character: 8 points of type and some space
MOST_CHARACTERS = 64
MOST_PIXELS = 100e6


class Picture(Figure):
    """A figure that a notebook shows as it is, without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    return rendered(figure, "png")


def about(folder: Path, model: ModelConfig, day: date | None = None) -> str:
    """Return the line below the title of a picture: the run, its model, and the date of the run, by default today."""
    sizes = f"{counted(model.layers, 'layer')}, {counted(model.heads, 'head')}, dim {model.dim}, context {model.ctx:,}"
    name = shown("/".join(folder.parts[-2:]) if len(folder.parts) > 1 else folder.name or folder.resolve().name, 60)
    return f"{name}: {sizes}; {day or date.today():%Y-%m-%d}"


@fixed_style()
def draw_losses(records: Sequence[Mapping[str, Any]], subtitle: str = "", unit: str = "character") -> Picture:
    """Draw training and validation loss over the steps, from the records of metrics.jsonl.

    A record without a finite loss is left out. `subtitle`: see `about`. `unit` is what a token is.
    """
    figure = Picture(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    training, validation = _points(records, "loss"), _points(records, "val_loss")
    if training:
        steps, losses = zip(*training, strict=True)
        noisy = len(losses) > 100
        axes.plot(steps, losses, color=BLUE, alpha=0.3 if noisy else 1.0, linewidth=0.8 if noisy else 1.5,
                  label="training, each step" if noisy else "training")  # fmt: skip
        if noisy:
            axes.plot(steps, smoothed(losses), color=BLUE, linewidth=1.8, label="training, smoothed")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color=VERMILLION, linewidth=1.5, marker="o", markersize=5,
                  label=f"validation; {losses[-1]:.3f} at the end")  # fmt: skip
    axes.set(xlabel="step", ylabel=f"loss (nats per {unit})")
    axes.set_title(f"Loss while training\n{fold(subtitle, 7.5, 11)}".rstrip(), fontsize=11, parse_math=False)
    axes.grid(alpha=0.25)
    legend_below(figure, axes)
    return figure


def _points(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return (step, loss) of the records that have both."""
    pairs = ((record.get("step"), record.get(name)) for record in records)
    return [(step, loss) for step, loss in pairs if is_finite(step) and is_finite(loss)]  # type: ignore[misc]


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300 and math.isfinite(value)


def smoothed(losses: tuple[float, ...]) -> Array:
    """Return a centered running mean over about a fiftieth of the run."""
    width = max(3, len(losses) // 50) | 1
    padded = np.pad(np.array(losses), width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")


@fixed_style()
def draw_attention(
    maps: Array, text: Sequence[str], subtitle: str = "", layers: Sequence[int] = (), heads: Sequence[int] = ()
) -> Figure:
    """Draw the attention weights (layers, heads, T, T) of the T tokens in `text`, one panel per layer and head.

    A row is a query, a column a key. `layers` and `heads` are those to draw, counted from 0 as in the names of the
    weights; by default all. Raises DataError if there is no such layer or head, or if the picture would be too large to
    read.
    """
    T = maps.shape[2]
    layers = _chosen("layer", layers, maps.shape[0])
    heads = _chosen("head", heads, maps.shape[1])
    if T > MOST_CHARACTERS:
        raise DataError(f"The prompt has {T:,} tokens; a picture is readable with up to {MOST_CHARACTERS}.")
    panel = max(1.9, CELL * T) + 0.75  # inches, with labels
    width, height = len(heads) * panel + 1.0, len(layers) * panel + 0.9
    if width * height * DPI**2 > MOST_PIXELS:
        raise DataError(
            f"{counted(len(layers), 'layer')} of {counted(len(heads), 'head')} on {T} tokens make a picture of "
            f"{width * DPI:,.0f} x {height * DPI:,.0f} pixels, which is too large; take a shorter prompt, or name some "
            f"layers and heads with {option('layer')} and {option('head')}."
        )
    figure = Picture(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(layers), len(heads), squeeze=False)
    labels = [_label(token) for token in text]
    upright = max(map(len, labels), default=0) > WIDE
    small, large = min(10.0, max(8.0, 80.0 / T)), min(16.0, max(10.0, 2.5 * panel))  # points of type
    norm = PowerNorm(0.5, 0.0, 1.0)  # most weights are small, so half of the colors go to those below 1/4
    future = np.triu(np.ones((T, T), np.bool_), 1)
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            axes = grid[row][column]
            seen = np.ma.masked_array(maps[layer, head], future)
            axes.imshow(seen, norm=norm, cmap="viridis", interpolation="nearest")
            axes.set_facecolor("0.93")
            axes.set_title(f"layer {layer}, head {head}", fontsize=large)
            axes.set_xticks(range(T), labels, fontsize=small, parse_math=False, rotation=90 if upright else 0)
            axes.set_yticks(range(T), labels, fontsize=small, parse_math=False)
            axes.tick_params(length=0, pad=3)
    unit = "character" if all(len(token) == 1 for token in text) else "token"
    title = fold(f"Attention weights of each {unit}", width, 1.2 * large)
    figure.suptitle(f"{title}\n{fold(subtitle, width, 1.2 * large)}".rstrip(), fontsize=1.2 * large, parse_math=False)
    figure.supxlabel("key (attends to)", fontsize=1.2 * large)
    figure.supylabel("query (attends from)", fontsize=1.2 * large)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=grid, fraction=0.3 / width, pad=0.2 / width,
                          aspect=len(layers) * panel / 0.3)  # fmt: skip
    bar.set_label("attention weight\n(square-root color scale)", fontsize=large)
    bar.set_ticks([0.0, 0.05, 0.25, 0.5, 1.0])
    bar.ax.tick_params(labelsize=large)
    return figure


def _chosen(what: str, wanted: Sequence[int], count: int) -> list[int]:
    """Return the layers or heads to draw, each once. Raises DataError for one that does not exist."""
    for number in wanted:
        if not 0 <= number < count:
            there = f"{what}s 0 to {count - 1}" if count > 1 else f"only {what} 0"
            raise DataError(f"There is no {what} {number}; the model has {there}.")
    return list(dict.fromkeys(wanted)) or list(range(count))


LONGEST = 12  # characters of a token that a label shows
WIDE = 6  # characters of a label, from which on labels of columns stand upright; a code point has as many
VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def _label(token: str) -> str:
    """Return a token as an axis label, shortened if it is long."""
    shown = "".join(map(_sign, token[:LONGEST]))
    return shown if len(token) <= LONGEST else f"{shown}…"


def _sign(char: str) -> str:
    """Return a character of an axis label; one that the font lacks as its code point."""
    char = VISIBLE.get(char, char)
    has_it = char.isprintable() and get_font(findfont(FontProperties())).get_char_index(ord(char)) != 0
    return char if has_it else f"{ord(char):x}"
