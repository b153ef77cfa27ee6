"""Matplotlib without a window and without the user's settings: a picture looks the same wherever it is drawn.

Only this module imports `matplotlib` itself, and nothing imports `pyplot`, so that neither MPLBACKEND, which every
notebook exports, nor a matplotlibrc has a say.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

_backend = os.environ.pop("MPLBACKEND", None)  # matplotlib refuses to be imported if it does not know the name
try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ticker import FixedLocator, NullLocator
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
if _backend is not None:
    with contextlib.suppress(Exception):  # what a notebook asked for still holds for the user's own pictures
        matplotlib.rcParams["backend"] = _backend

__all__ = [
    "BLUE", "DPI", "VERMILLION", "Figure", "FigureCanvasAgg", "FontProperties", "PowerNorm", "ScalarMappable",
    "findfont", "fixed_style", "fold", "get_font", "label_log_axis", "legend_below", "plain", "rendered",
]  # fmt: skip

# Two colors of Okabe & Ito, which can be told apart with any color vision
BLUE, VERMILLION = "#0072B2", "#D55E00"
DPI = 150
# With a fixed salt, the same picture has the same bytes.
_FIXED: dict[Any, Any] = {"svg.hashsalt": "bevia-fast", "figure.dpi": DPI, "savefig.dpi": DPI}


@contextlib.contextmanager
def fixed_style() -> Iterator[None]:
    """Draw with matplotlib's own defaults, whatever a matplotlibrc says, and without its warnings."""
    log = logging.getLogger("matplotlib")
    level = log.level
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about characters that the font lacks, and the like
        log.setLevel(logging.CRITICAL)
        try:
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_FIXED)
            yield
        finally:
            log.setLevel(level)


def rendered(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as the bytes of a file. `kind`: png, svg or pdf."""
    buffer = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with fixed_style():
        figure.set_canvas(FigureCanvasAgg(figure))
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def fold(text: str, inches: float, points: float) -> str:
    """Return a text in lines that fit into a width, if it is set in this size of type."""
    most = max(16, int(inches * 72 / (0.56 * points)))
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, most) or [""])


def legend_below(figure: Figure, axes: Any) -> None:
    """Put the legend of `axes` below the figure, where it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, int(figure.get_figwidth() * 13 / (max(map(len, labels)) + 6)))  # about 13 characters per inch
        figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def plain(value: float) -> str:
    """Return a number without a power of ten: 0.002, 0.5, 20, 10,000."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.15f}".rstrip("0")


def label_log_axis(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis from `low` to `high` with numbers, at four ticks or more."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), [1 + n / 10 for n in range(90)]):
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) >= 4:
            break
    else:
        ticks = [low * (high / low) ** (n / 3) for n in range(4)]  # closer together than 10 %
    axis.set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / 12)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: plain(float(f"{value:.3g}")))
