"""The film of a run: which steps it shows, and its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import random_parameters
from hypothesis import given
from hypothesis import strategies as st
from small_runs import TINY

from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import CheckpointError
from bevia_fast.runs.film import cut_film, film_steps, frame_path, frames, save_frame
from bevia_fast.runs.modelfile import load_trained

MODEL = replace(TINY, vocab_size=2)


def test_the_steps_of_the_default_run() -> None:
    assert film_steps(1250, 16) == [0, 12, 17, 24, 34, 47, 65, 90, 125, 174, 241, 335, 466, 647, 900, 1250]


@pytest.mark.parametrize(
    ("steps", "count", "wanted"),
    [(10, 0, []), (10, 1, [10]), (10, 2, [0, 10]), (10, 3, [0, 1, 10]), (10, 4, [0, 1, 3, 10]), (1, 16, [0, 1]),
     (3, 16, [0, 1, 2, 3]), (100, 4, [0, 1, 10, 100]), (1000, 4, [0, 10, 100, 1000])],
)  # fmt: skip
def test_the_steps_of_short_films(steps: int, count: int, wanted: list[int]) -> None:
    assert film_steps(steps, count) == wanted


@given(steps=st.integers(1, 10**7), count=st.integers(2, 200))
def test_steps_ascend_from_the_first_to_the_last(steps: int, count: int) -> None:
    found = film_steps(steps, count)
    assert found[0] == 0
    assert found[-1] == steps
    assert found == sorted(set(found))
    assert len(found) <= count
    assert len(found) == count or steps < 40 * count  # short runs have fewer distinct steps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_frame_is_a_model_in_float32(tmp_path: Path, dtype: str) -> None:
    weights = random_parameters(replace(MODEL, dtype=dtype))
    size = save_frame(tmp_path, weights, Tokenizer("ab"), 7)
    assert frame_path(tmp_path, 7).stat().st_size == size
    found, tokenizer, step = load_trained(frame_path(tmp_path, 7))
    assert (found.config, tokenizer.alphabet, step) == (replace(MODEL, dtype="float32"), "ab", 7)
    assert all(np.array_equal(found[name], weights[name].astype(np.float32)) for name in weights)


def test_frames_are_listed_and_cut(tmp_path: Path) -> None:
    assert frames(tmp_path) == []
    weights = random_parameters(MODEL)
    for step in (100, 0, 20):
        save_frame(tmp_path, weights, Tokenizer("ab"), step)
    (tmp_path / "film" / "holiday.mp4").write_text("")
    assert [step for step, _ in frames(tmp_path)] == [0, 20, 100]
    cut_film(tmp_path, 20)
    assert [step for step, _ in frames(tmp_path)] == [0, 20]
    assert (tmp_path / "film" / "holiday.mp4").exists()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "film").write_text("")
    with pytest.raises(CheckpointError, match=r"^Cannot write .*film: "):
        save_frame(tmp_path, random_parameters(MODEL), Tokenizer("ab"), 0)
