"""The pictures show what the program computes now, and the chapters show all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bevia_fast.playbook.chapters import folder, read_chapters
from bevia_fast.playbook.figures import computed, pictures, stored, svg


def assert_same(found: Any, wanted: Any, tolerance: float, where: str) -> None:
    """Numbers to within a tolerance relative to the largest of a list; everything else exactly."""
    if isinstance(wanted, list) and wanted and not isinstance(wanted[0], str):
        a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        assert a.shape == b.shape, where
        assert np.abs(a - b).max() <= tolerance * max(1e-300, float(np.abs(b).max())), where
    else:
        assert found == wanted, where


@pytest.mark.parametrize("name", list(pictures()))
def test_the_data_of_a_picture_are_what_the_program_computes(name: str) -> None:
    found, wanted = computed(name), stored(name)
    assert found.keys() == wanted.keys()
    for part in wanted:
        assert_same(found[part], wanted[part], pictures()[name].tolerance, f"{name}: {part}")


def test_a_picture_that_differs_is_noticed() -> None:
    wanted = stored("scale")
    with pytest.raises(AssertionError, match="with"):
        assert_same([x * 1.0001 for x in wanted["with"]], wanted["with"], pictures()["scale"].tolerance, "with")


def test_pictures_are_drawn_from_their_data() -> None:
    """Each in the current form: a changed function that draws them means that they must be drawn anew."""
    for name in ("tokens", "scale", "memory"):
        assert svg(name, stored(name)).startswith(b"<?xml")
        assert svg(name, stored(name)) != svg(name, {**stored(name), **_halved(stored(name))})


def _halved(data: Any) -> Any:
    return {
        part: [x / 2 for x in values] for part, values in data.items()
        if isinstance(values, list) and not isinstance(values[0], str)
    }  # fmt: skip


def test_every_picture_is_in_a_chapter_and_every_file_is_a_picture() -> None:
    shown = [name for chapter in read_chapters() for name in chapter.figures]
    assert sorted(shown) == sorted(pictures())
    files = {path.name for path in (folder() / "figures").iterdir()}
    assert files == {f"{name}.{ending}" for name in pictures() for ending in ("svg", "json")}


def test_what_the_text_says_about_pictures() -> None:
    """Numbers that a caption or a paragraph names."""
    assert stored("embedding-gradient")["gradient"] == [3.0, 1.0, 2.0]
    scale = stored("scale")
    assert max(scale["with"]) - min(scale["with"]) < 5
    assert 35 < scale["with"][-1] < 45
    assert scale["without"] == sorted(scale["without"], reverse=True)
    assert scale["without"][-1] < 2
    residuals = stored("residuals")
    assert min(residuals["without"]) > max(residuals["with"])  # they do not vanish
    assert residuals["alike_without"][-1] > 0.999
    assert max(residuals["alike_with"]) < 0.05
    norms = stored("norms")
    assert norms["pre"][1:] == sorted(norms["pre"][1:])
    assert all(abs(size - 1) < 0.01 for size in norms["post"][1:])
    gradients = stored("block-gradients")
    assert np.abs(np.subtract(gradients["backward"], gradients["measured"])).max() < 1e-7
    assert not any(stored("score-gradients")["row_sums"])
    assert stored("score-gradients")["from_engine"] == 0
    assert max(stored("bias-correction")["with"]) < 1.001
    assert max(stored("bias-correction")["without"]) > 2
    assert stored("orders")["distinct"] > 20
    assert np.allclose(np.sum(stored("maps")["weights"], axis=2), 1)
