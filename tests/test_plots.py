"""The plots, as far as a program can check them."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from bevia_fast.errors import DataError
from bevia_fast.plots import MOST_CHARACTERS, draw_attention, draw_losses, png


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(data)))


def record(step: int, loss: float | None, val: float | None) -> dict[str, Any]:
    return {"step": step, "loss": loss, "val_loss": val}


@pytest.mark.parametrize("steps", [0, 1, 10, 400])
def test_loss_curve_is_labeled(steps: int) -> None:
    records = [record(0, None, 4.6)]
    records += [record(i, 4.0 / i, 4.1 / i if i % 10 == 0 else None) for i in range(1, steps + 1)]
    figure = draw_losses(records)
    (axes,) = figure.axes
    assert axes.get_title()
    assert axes.get_xlabel() == "step"
    assert axes.get_ylabel() == "loss (nats per character)"
    assert len(axes.lines) == (1 if steps == 0 else 2 if steps <= 100 else 3)
    assert pixels(png(figure)).shape == (500, 800, 4)


def test_each_layer_and_head_has_a_panel_with_characters_on_both_axes() -> None:
    text = "a b\n$x$_\t\u4e2d"  # mathtext symbols, and a character that the font lacks
    maps = np.tril(np.ones((3, 2, len(text), len(text))))
    figure = draw_attention(maps / maps.sum(-1, keepdims=True), text)
    assert figure.get_supxlabel() == "key (attends to)"
    assert figure.get_supylabel() == "query (attends from)"
    panels = figure.axes[:6]
    assert [panel.get_title() for panel in panels] == [
        f"layer {layer}, head {head}" for layer in (1, 2, 3) for head in (1, 2)
    ]
    labels = ["a", "␣", "b", "↵", "$", "x", "$", "_", "⇥", "4e2d"]
    for panel in panels:
        assert [label.get_text() for label in panel.get_xticklabels()] == labels
        assert [label.get_text() for label in panel.get_yticklabels()] == labels
    picture = pixels(png(figure))
    assert picture.std() > 0.05
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [panel.get_tightbbox(renderer) for panel in panels]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert not a.overlaps(b)


def test_pictures_too_large_to_read_are_refused() -> None:
    T = MOST_CHARACTERS + 1
    with pytest.raises(DataError, match=f"The prompt has {T} characters"):
        draw_attention(np.zeros((1, 1, T, T)), "x" * T)
    with pytest.raises(DataError, match="take a shorter prompt"):
        draw_attention(np.broadcast_to(np.zeros(()), (50, 50, 40, 40)), "x" * 40)
