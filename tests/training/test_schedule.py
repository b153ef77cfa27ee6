"""The learning rate schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bevia_fast.training.schedule import learning_rate


def test_known_values() -> None:
    def rate(step: int) -> float:
        return learning_rate(step, steps=2000, lr=1e-3, min_lr=1e-4, warmup=100)

    assert rate(1) == pytest.approx(1e-5)
    assert rate(50) == pytest.approx(5e-4)
    assert rate(100) == pytest.approx(1e-3)
    assert rate(1050) == pytest.approx(5.5e-4)  # half way down
    assert rate(2000) == pytest.approx(1e-4)


@given(st.integers(1, 500), st.integers(0, 600))
def test_the_rate_rises_then_falls_within_its_bounds(steps: int, warmup: int) -> None:
    rates = [learning_rate(step, steps=steps, lr=1.0, min_lr=0.1, warmup=warmup) for step in range(1, steps + 1)]
    top = min(warmup, steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(0.0 < rate <= 1.0 for rate in rates)
    if steps > warmup:
        assert rates[-1] == pytest.approx(0.1)
