"""Place the labels of the points in a diagram so that they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..canvas import Figure

Box = tuple[float, float, float, float]  # left, bottom, right, top on the page
LABEL = 8.5  # font size of a label, in points
DISTANCE = 7  # points between a mark and its label
FAR = 3 * DISTANCE  # labels further away than this get a line to their mark


def place_labels(figure: Figure, axes: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Label points, each given as (x, y, text, color), where the label covers no other label, point or line.

    A label that does not fit beside its point is placed further away, with a line to the point; one that fits nowhere
    is left out.
    """
    figure.draw_without_rendering()  # so that positions on the page are known
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    centers = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [(cx - 5 * scale, cy - 5 * scale, cx + 5 * scale, cy + 5 * scale) for cx, cy in centers]
    taken += [_box(text.get_window_extent(renderer)) for text in axes.texts]
    for line in axes.lines:
        if line.get_linestyle() != "None":  # a roof
            (x0, y0), (x1, y1) = axes.transData.transform(line.get_xydata())
            along = np.linspace((x0, y0), (x1, y1), 200)
            taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in along]
    frame = _box(axes.get_window_extent(renderer))
    for (x, y, text, color), (cx, cy) in sorted(zip(points, centers, strict=True), key=lambda p: -p[1][1]):
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
            continue  # better no label than one that covers another
        taken += [box, *leader]
        axes.annotate(
            text, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=LABEL, color=color,
            ha="left" if dx > 0 else "right" if dx < 0 else "center",
            va="bottom" if dy > 0 else "top" if dy < 0 else "center", zorder=4,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.7} if leader else None,
        )  # fmt: skip


def _places(cx: float, cy: float, width: float, height: float, scale: float) -> Any:
    """Yield offsets in points, nearest first, with the box that the label would take on the page."""
    for distance in (DISTANCE, 14, 24, 36, 50, 70, 95, 125, 160, 200, 250, 310):
        for sx, sy in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            dx, dy = sx * distance, sy * distance
            x0 = cx + dx * scale - (width if sx < 0 else width / 2 if sx == 0 else 0)
            y0 = cy + dy * scale - (height if sy < 0 else height / 2 if sy == 0 else 0)
            yield dx, dy, (x0 - 1, y0 - 1, x0 + width + 1, y0 + height + 1)


def _line(cx: float, cy: float, box: Box) -> list[Box]:
    """Return small boxes along the line from a point to its label."""
    x, y = min(max(cx, box[0]), box[2]), min(max(cy, box[1]), box[3])
    places = [(cx + s / 24 * (x - cx), cy + s / 24 * (y - cy)) for s in range(3, 23)]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in places]


def _box(extent: Any) -> Box:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
