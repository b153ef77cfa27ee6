"""The arithmetic behind an answer, with numbers that one can check by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bevia_fast.lab.answers import best_rate, differences, margin, mean, sentence


def cells(**arms: dict[float, list[float | None]]) -> list[dict[str, Any]]:
    """Records from {arm: {rate: [loss of seed 1, of seed 2, ...]}}."""
    return [
        {"arm": arm, "rate": rate, "seed": seed, "val_loss": loss}
        for arm, rates in arms.items() for rate, losses in rates.items() for seed, loss in enumerate(losses, 1)
    ]  # fmt: skip


def test_the_confidence_interval_is_students() -> None:
    assert margin([1.0, 2.0, 3.0]) == pytest.approx(4.303 * 1.0 / math.sqrt(3))
    assert margin([5.0, 5.0]) == 0
    assert margin([1.0]) == math.inf
    assert margin([1.0, math.inf]) == math.inf
    assert margin([0.0, 1.0] * 50) == pytest.approx(1.960 * math.sqrt(25 / 99) / 10)


def test_each_arm_has_its_own_best_rate() -> None:
    found = cells(a={0.1: [2.0, 2.2], 0.2: [2.5, 2.5]}, b={0.1: [3.0, 3.0], 0.2: [1.0, 1.4]})
    assert (best_rate(found, "a"), best_rate(found, "b")) == (0.1, 0.2)
    _, b = differences(found, ["a", "b"])
    assert b.mean == pytest.approx((1.0 - 2.0 + 1.4 - 2.2) / 2)
    assert b.margin == pytest.approx(12.706 * 0.1)
    assert not b.differs


def test_seeds_are_paired() -> None:
    """Seeds that differ by far more than the arms do not hide a difference that every pair shows."""
    found = cells(a={0.1: [1.0, 2.0, 3.0]}, b={0.1: [1.1, 2.1, 3.1001]})
    _, b = differences(found, ["a", "b"])
    assert b.differs
    assert b.mean == pytest.approx(0.1, abs=1e-3)
    assert "*b* 2.100 (+0.100 ± 0.000)" in sentence(found, ["a", "b"], 7)


def test_no_difference_is_an_answer() -> None:
    found = cells(a={0.1: [1.0, 2.0, 3.0]}, b={0.1: [1.3, 1.8, 3.0]})
    assert ": no difference)" in sentence(found, ["a", "b"], 1200)
    assert "after 1,200 steps" in sentence(found, ["a", "b"], 1200)


def test_one_seed_says_little() -> None:
    assert "one seed says little" in sentence(cells(a={0.1: [1.0]}, b={0.1: [2.0]}), ["a", "b"], 9)


def test_a_run_that_diverged_is_never_the_best() -> None:
    found = cells(a={0.1: [2.0], 0.2: [None]}, b={0.1: [None], 0.2: [None]})
    assert best_rate(found, "a") == 0.1
    assert mean([1.0, math.inf]) == math.inf
    assert "*b* diverged at every learning rate" in sentence(found, ["a", "b"], 9)
    assert "*b* diverged" in sentence(found, ["b", "a"], 9)
    assert differences(found, ["a", "b"])[1].differs
