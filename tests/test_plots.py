"""The plots, as far as a program can check them."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from bevia_fast import canvas
from bevia_fast.config import ModelConfig
from bevia_fast.errors import DataError
from bevia_fast.plots import MOST_CHARACTERS, about, draw_attention, draw_losses, png

pytestmark = pytest.mark.usefixtures("typed")


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
    assert axes.get_legend() is None  # it is below the figure, off the points
    assert len(figure.legends) == 1
    assert len(axes.lines) == (1 if steps == 0 else 2 if steps <= 100 else 3)
    assert pixels(png(figure)).shape == (750, 1200, 4)


def test_each_layer_and_head_has_a_panel_with_characters_on_both_axes() -> None:
    text = "a b\n$x$_\t\u4e2d"  # mathtext symbols, and a character that the font lacks
    maps = np.tril(np.ones((3, 2, len(text), len(text))))
    figure = draw_attention(maps / maps.sum(-1, keepdims=True), text)
    assert figure.get_supxlabel() == "key (attends to)"
    assert figure.get_supylabel() == "query (attends from)"
    panels = figure.axes[:6]
    assert [panel.get_title() for panel in panels] == [
        f"layer {layer}, head {head}" for layer in (0, 1, 2) for head in (0, 1)
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
    with pytest.raises(DataError, match=f"The prompt has {T} tokens"):
        draw_attention(np.zeros((1, 1, T, T)), "x" * T)
    with pytest.raises(DataError, match="--layer and --head"):
        draw_attention(np.broadcast_to(np.zeros(()), (50, 50, 40, 40)), "x" * 40)


def test_titles_name_the_run_its_model_and_the_date() -> None:
    line = about(Path("/home/me/runs/7"), ModelConfig(layers=1), date(2026, 11, 28))
    assert line == "runs/7: 1 layer, 4 heads, dim 128, context 64; 2026-11-28"
    assert about(Path("runs/$x$"), ModelConfig()).endswith(f"; {date.today()}")
    figure = draw_losses([record(0, 1.0, 1.0)], line)
    assert figure.axes[0].get_title() == f"Loss while training\n{line}"
    maps = np.ones((1, 1, 3, 3))
    assert "".join(line.split()) in "".join(draw_attention(maps, "abc", line).get_suptitle().split())
    png(draw_losses([record(0, 1.0, 1.0)], about(Path("runs/$\\frac$"), ModelConfig())))  # not read as mathematics


def test_records_without_a_finite_loss_are_left_out() -> None:
    records: list[dict[str, Any]] = [
        {}, {"step": 1}, {"step": "x", "loss": 1.0}, record(2, float("nan"), None), record(3, 10**400, float("inf")),
        record(4, 2.5, None),
    ]  # fmt: skip
    (axes,) = draw_losses(records).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.5]]
    assert not draw_losses([]).axes[0].lines


def test_layers_and_heads_can_be_chosen() -> None:
    """Counted as in the names of the weights: h.0 is layer 0."""
    maps = np.zeros((3, 4, 2, 2))
    maps[2, 1, 1, 0] = 0.75
    figure = draw_attention(maps, "ab", "", [2], [3, 1, 3])
    panels = [axes for axes in figure.axes if axes.images]
    assert [panel.get_title() for panel in panels] == ["layer 2, head 3", "layer 2, head 1"]
    assert [float(panel.images[0].get_array()[1, 0]) for panel in panels] == [0.0, 0.75]  # type: ignore[index]
    with pytest.raises(DataError, match="There is no layer 3; the model has layers 0 to 2"):
        draw_attention(maps, "ab", "", [3])
    with pytest.raises(DataError, match="There is no head -1; the model has only head 0"):
        draw_attention(maps[:, :1], "ab", "", [], [-1])


def test_the_colors_are_explained() -> None:
    figure = draw_attention(np.ones((1, 1, 2, 2)), "ab")
    assert figure.axes[-1].get_ylabel() == "attention weight\n(square-root color scale)"


# ------------------------------------------------------------------------------------------ independent of the settings

DRAW = """
import sys
from bevia_fast.canvas import rendered
from bevia_fast.plots import draw_attention, draw_losses
import numpy as np
losses = draw_losses([{"step": n, "loss": 3.0 / n, "val_loss": None} for n in range(1, 9)], "runs/1 \u4e2d")
maps = draw_attention(np.ones((1, 1, 3, 3)) / 3, "a \u4e2d")
for figure in (losses, maps):
    for kind in ("png", "svg", "pdf"):
        sys.stdout.buffer.write(rendered(figure, kind))
assert "matplotlib.pyplot" not in sys.modules
"""
STRANGE = "text.usetex: True\nfont.size: 40\nfigure.dpi: 9\nsavefig.dpi: 9\nfont.family: nowhere\naxes.grid: True\n"


def drawn(folder: Path, **variables: str) -> bytes:
    """Return the bytes of pictures drawn in another process, which prints nothing else."""
    usual = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "MATPLOTLIBRC")}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=folder, env=usual | variables, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    return done.stdout


def test_pictures_depend_on_no_setting_of_matplotlib(tmp_path: Path) -> None:
    usual = drawn(tmp_path)
    assert usual[:4] == b"\x89PNG"
    for backend in ("nonsense", "module://matplotlib_inline.backend_inline", "TkAgg", "svg"):
        assert drawn(tmp_path, MPLBACKEND=backend) == usual, backend
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "matplotlibrc").write_text(STRANGE)
    assert drawn(tmp_path, MATPLOTLIBRC=str(tmp_path / "strange")) == usual
    assert drawn(tmp_path / "strange") == usual  # in the current folder


def test_a_notebook_keeps_the_backend_that_it_asked_for(tmp_path: Path) -> None:
    script = "import bevia_fast.plots, matplotlib, os; print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "MPLBACKEND": "svg"}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.stdout == "svg svg\n", done.stderr


def test_drawing_leaves_the_settings_of_matplotlib_alone() -> None:
    before, level = dict(matplotlib.rcParams), logging.getLogger("matplotlib").level
    with matplotlib.rc_context({"font.size": 33.0}):
        png(draw_losses([record(0, 1.0, 1.0)]))
        assert matplotlib.rcParams["font.size"] == 33.0
    assert dict(matplotlib.rcParams) == before
    assert logging.getLogger("matplotlib").level == level


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_each_format_is_what_it_says(kind: str, start: bytes) -> None:
    assert canvas.rendered(draw_losses([record(0, 1.0, 1.0)]), kind).startswith(start)


@pytest.mark.parametrize(
    ("low", "high"), [(0.2, 900), (30, 1100), (1.0, 1.05), (2.0, 9.0), (0.003, 0.02), (1e-9, 1e9), (95.0, 130.0)]
)
def test_logarithmic_axes_have_at_least_four_labels(low: float, high: float) -> None:
    figure = canvas.Figure()
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    canvas.label_log_axis(axes.yaxis, low, high)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert 4 <= len(shown) <= 12
    assert len(set(shown)) == len(shown)
    assert not any("$" in label or "e" in label for label in shown if label != "0")
