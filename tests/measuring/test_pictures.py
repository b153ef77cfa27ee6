"""Pictures of measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.text import Text

from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.measuring.pictures import draw_contexts, draw_roofline, draw_scaling
from bevia_fast.measuring.results import KernelResult, StepResult
from bevia_fast.plots import png


def result(kernel: str, backend: str, intensity: float, gflops: float) -> KernelResult:
    return KernelResult(
        kernel, backend, 2, "float32", "N=1", {"N": 1}, 1.0, 0.9, 1.1, gflops * 1e6, gflops * 1e6 / intensity,
        intensity, gflops, gflops / intensity, 400.0, 40.0, min(400.0, 40 * intensity), gflops / 400, 0.5, "memory",
        1.0, cpu="AMD EPYC", date="2026-11-28",
    )  # fmt: skip


def test_labels_of_the_roofline_do_not_overlap() -> None:
    """With all kernels of both backends, forward and backward close together."""
    results = []
    for number, name in enumerate(OPERATIONS):
        for backend, factor in (("numpy", 1.0), ("numba", 1.3)):
            results.append(result(name, backend, 0.25 * 1.4 ** (number // 2), factor * (3 + number // 2)))
    figure = draw_roofline(results)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without the leader lines
    assert len(boxes) >= 0.9 * len(results)
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:i])
    assert "byte" in axes.get_xlabel()
    assert "floating-point operations per second" in axes.get_ylabel()
    assert "EPYC" in figure.get_suptitle()
    assert "2026-11-28" in figure.get_suptitle()
    assert axes.get_legend() is None  # it is below the figure, off the points
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert len([tick for tick in ticks if tick.get_text()]) > 3


def test_roofs_are_labeled_with_the_bytes_of_their_triad() -> None:
    for nbytes, label in ((16384, "16.4 kB"), (8e6, "8.0 MB"), (268_435_456, "268.4 MB")):
        one = replace(result("adamw", "numba", 1.0, 10.0), triad_bytes=nbytes)
        (axes,) = draw_roofline([one]).axes
        assert f"40 GB/s, a triad over {label} of arrays" in [line.get_label() for line in axes.lines]


def test_scaling_curves_are_labeled() -> None:
    results = [
        StepResult(backend, 2, "float32", ctx, 64, 1, 1, 8, 65, ms * ctx, ms * ctx * 0.9, ms * ctx * 1.2, 1e5, 1e9,
                   10.0, 400.0, 0.025 * ms, 100.0, 1.0)
        for ctx in (64, 128, 256) for backend, ms in (("numpy", 2.0), ("numba", 0.3))
    ]  # fmt: skip
    figure = draw_scaling(results, "ctx", "runs/1")
    assert "runs/1: dim 64" in figure.get_suptitle()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["numpy", "numba"]
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_ylabel()
        assert "tokens" in axes.get_xlabel()
        assert [line.get_label() for line in axes.lines] == ["numpy", "numba"]


@pytest.mark.parametrize("least_mb", [0.0, 1.0])  # 0: the process needed no further page
@pytest.mark.parametrize("count", [1, 8])
def test_the_picture_of_contexts_takes_any_points(count: int, least_mb: float) -> None:
    points = [
        StepResult(name, 2, "float32", 512 << p, 128, 2, 2, 1, 65, 1.0, 0.9, 1.1, 1e5 / 2**p, 1e9, 10.0, 100.0, 0.1,
                   300.0, 1.0, least_mb if p == 0 else 2.0**p)
        for name in ("numpy", "numba", "numba --recompute", "torch-eager") for p in range(count)
    ]  # fmt: skip
    assert png(draw_contexts(points)).startswith(b"\x89PNG")
