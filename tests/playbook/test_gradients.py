"""The check of a reader's own backward pass."""

from __future__ import annotations

import numpy as np
import pytest

from bevia_fast.playbook.gradients import gradient_error


def cube(out: np.ndarray, inp: np.ndarray) -> None:
    out[...] = inp**3


def test_a_right_gradient_has_no_error_and_the_input_is_not_changed() -> None:
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    kept = x.copy()
    assert gradient_error(cube, lambda dinp, dout, inp: np.copyto(dinp, 3 * inp**2 * dout), x) < 1e-8
    assert (x == kept).all()


@pytest.mark.parametrize("factor", [0.0, 0.999, 1.001, -1.0])
def test_a_wrong_gradient_has_an_error_of_its_size(factor: float) -> None:
    x = np.array([1.0, -2.0])
    error = gradient_error(cube, lambda dinp, dout, inp: np.copyto(dinp, factor * 3 * inp**2 * dout), x)
    assert error == pytest.approx(abs(1 - factor) / max(1, abs(factor)), rel=1e-3)


def test_an_output_that_is_not_written_is_noticed() -> None:
    assert gradient_error(cube, lambda dinp, dout, inp: None, np.array([1.0, -2.0])) > 0.1


def test_the_output_may_have_another_shape() -> None:
    def total(out: np.ndarray, inp: np.ndarray) -> None:
        out[...] = inp.sum()

    assert gradient_error(total, lambda dinp, dout, inp: dinp.fill(dout[0]), np.ones((2, 3)), (1,)) < 1e-8


def test_a_function_that_is_constant_has_the_gradient_0() -> None:
    assert gradient_error(lambda out, inp: out.fill(1), lambda dinp, dout, inp: dinp.fill(0), np.ones(2)) == 0


@pytest.mark.parametrize("inp", [np.array([]), np.array([np.nan])])
def test_an_input_without_numbers_is_refused(inp: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least one finite number"):
        gradient_error(cube, cube, inp)  # type: ignore[arg-type]
