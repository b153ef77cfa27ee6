"""Pictures: the losses of a run, and attention maps. Only this module and `measuring.pictures` import matplotlib."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from .errors import DataError

Array = NDArray[Any]

# Two colors of Okabe & Ito, which can be told apart with any color vision
BLUE, VERMILLION = "#0072B2", "#D55E00"
DPI = 100
CELL = 0.15  # inches of an attention map per character: 8 points of type and some space
MOST_CHARACTERS = 64
MOST_PIXELS = 100e6


class Picture(Figure):
    """A figure that a notebook shows as it is, without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_losses(records: list[dict[str, Any]]) -> Picture:
    """Draw training and validation loss over the steps, from the records of metrics.jsonl."""
    figure = Picture(figsize=(8, 5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    training = [(r["step"], r["loss"]) for r in records if r["loss"] is not None]
    validation = [(r["step"], r["val_loss"]) for r in records if r["val_loss"] is not None]
    if training:
        steps, losses = zip(*training, strict=True)
        noisy = len(losses) > 100
        axes.plot(steps, losses, color=BLUE, alpha=0.3 if noisy else 1.0, linewidth=0.8 if noisy else 1.5,
                  label="training, each step" if noisy else "training")  # fmt: skip
        if noisy:
            axes.plot(steps, _smoothed(losses), color=BLUE, linewidth=1.8, label="training, smoothed")
    if validation:
        steps, losses = zip(*validation, strict=True)
        axes.plot(steps, losses, color=VERMILLION, linewidth=1.5, marker="o", markersize=5,
                  label=f"validation; {losses[-1]:.3f} at the end")  # fmt: skip
    axes.set(title="Loss while training", xlabel="step", ylabel="loss (nats per character)")
    axes.grid(alpha=0.25)
    if training or validation:
        axes.legend()
    return figure


def _smoothed(losses: tuple[float, ...]) -> Array:
    """Return a centered running mean over about a fiftieth of the run."""
    width = max(3, len(losses) // 50) | 1
    padded = np.pad(np.array(losses), width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1.0 / width), mode="valid")


def draw_attention(maps: Array, text: str) -> Figure:
    """Draw the attention weights (layers, heads, T, T) of the T characters of `text`, one panel per layer and head.

    A row is a query, a column a key. Raises DataError if the picture would be too large to read.
    """
    layers, heads, T, _ = maps.shape
    if T > MOST_CHARACTERS:
        raise DataError(f"The prompt has {T:,} characters; a picture is readable with up to {MOST_CHARACTERS}.")
    panel = max(1.9, CELL * T) + 0.75  # inches, with labels
    width, height = heads * panel + 1.0, layers * panel + 0.9
    if width * height * DPI**2 > MOST_PIXELS:
        raise DataError(
            f"{layers} layers of {heads} heads on {T} characters make a picture of {width * DPI:,.0f} x "
            f"{height * DPI:,.0f} pixels, which is too large; take a shorter prompt."
        )
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(layers, heads, squeeze=False)
    labels = [_label(char) for char in text]
    small, large = min(10.0, max(8.0, 80.0 / T)), max(10.0, 2.5 * panel)  # points of type
    norm = PowerNorm(0.5, 0.0, 1.0)  # most weights are small, so half of the colors go to those below 1/4
    future = np.triu(np.ones((T, T), np.bool_), 1)
    for layer in range(layers):
        for head in range(heads):
            axes = grid[layer][head]
            shown = np.ma.masked_array(maps[layer, head], future)
            axes.imshow(shown, norm=norm, cmap="viridis", interpolation="nearest")
            axes.set_facecolor("0.93")
            axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=large)
            axes.set_xticks(range(T), labels, fontsize=small, parse_math=False)
            axes.set_yticks(range(T), labels, fontsize=small, parse_math=False)
            axes.tick_params(length=0, pad=3)
    figure.suptitle("Attention weights of each character", fontsize=1.4 * large)
    figure.supxlabel("key (attends to)", fontsize=1.2 * large)
    figure.supylabel("query (attends from)", fontsize=1.2 * large)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=grid, fraction=0.3 / width, pad=0.2 / width,
                          aspect=layers * panel / 0.3)  # fmt: skip
    bar.set_label("attention weight", fontsize=1.2 * large)
    bar.ax.tick_params(labelsize=large)
    return figure


VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def _label(char: str) -> str:
    """Return a character as an axis label; one that the font lacks as its code point."""
    char = VISIBLE.get(char, char)
    has_it = char.isprintable() and get_font(findfont(FontProperties())).get_char_index(ord(char)) != 0
    return char if has_it else f"{ord(char):x}"
