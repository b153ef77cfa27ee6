"""The tests' own measure: tolerances that arithmetic explains, and that catch what they are there to catch."""

from __future__ import annotations

import types
from typing import cast

import numpy as np
import pytest

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, compare, difference, make_arguments, run
from bevia_fast.agreement.tolerances import BOUNDS, outputs, scale, tolerance
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend

ALL = [case for operation in OPERATIONS for case in cases(operation)]


def test_every_output_of_every_operation_has_a_bound() -> None:
    assert {operation for operation, _ in BOUNDS} == set(OPERATIONS)
    for name, entry in OPERATIONS.items():
        assert set(outputs(name)) - {"return"} <= set(entry.signature.parameters)
        assert entry.twice <= set(outputs(name)), name


@pytest.mark.parametrize("operation", OPERATIONS)
def test_float64_is_held_to_1e_minus_10(operation: str) -> None:
    for case in cases(operation):
        for output in outputs(operation):
            assert tolerance(operation, output, "float64", case.dims) <= 1e-10


@pytest.mark.parametrize("operation", OPERATIONS)
def test_rounding_of_float32_stays_within_half_the_tolerance(operation: str) -> None:
    """The NumPy path in float32 against itself in float64 on the same numbers."""
    numpy = get_backend("numpy")
    for case in cases(operation):
        single, double = make_arguments(case, "float32"), make_arguments(case, "float32")
        for name, array in double.items():
            if isinstance(array, np.ndarray) and array.dtype == np.float32:
                double[name] = array.astype(np.float64, order="K")
        if case.in_place is not None:
            double[case.in_place[0]] = double[case.in_place[1]]
        inputs = dict(double)
        if case.in_place is not None:
            inputs[case.in_place[1]] = double[case.in_place[1]].copy()
        results, expected = run(numpy, case, single), run(numpy, case, double)
        for name in expected:
            limit = max(tolerance(operation, name, "float32", case.dims), 2.0**-22)
            relative_to = scale(operation, name, expected[name], inputs)
            result = difference(name, results[name], expected[name], limit / 2, relative_to, str(case))
            assert result.ok, str(result)


def test_the_same_arguments_again() -> None:
    for case in ALL:
        first, second = make_arguments(case, "float32"), make_arguments(case, "float32")
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])
        other = make_arguments(case, "float32", seed=1)
        assert any(not np.array_equal(value, other[name]) for name, value in first.items() if value is not None)


def test_cases_have_names_of_their_own() -> None:
    assert len({str(case) for case in ALL}) == len(ALL)


def faulty(operation: str, fault: str) -> Backend:
    """The NumPy backend with a mistake in one operation."""
    numpy = get_backend("numpy")
    right = getattr(numpy, operation)

    def wrong(**arguments: np.ndarray) -> None:
        if fault == "a lost term":
            arguments["inp"] = arguments["inp"].copy()
            arguments["inp"][0, -1] = 0
        first = arguments[outputs(operation)[0 if fault != "overwritten" else 1]]
        before = first.copy()
        right(**arguments)
        if fault == "added":
            first += before
        elif fault == "overwritten":
            first -= before
        elif fault == "input touched":
            arguments["weight"][...] *= 1.001
        elif fault == "nan":
            first[0, 0] = np.nan

    return cast(Backend, types.SimpleNamespace(**{**vars(numpy), operation: wrong}))


@pytest.mark.parametrize(
    ("operation", "fault", "tensor"),
    [
        ("linear_forward", "a lost term", "out"),
        ("linear_forward", "added", "out"),
        ("linear_forward", "nan", "out"),
        ("linear_forward", "input touched", "weight"),
        ("linear_backward", "a lost term", "dweight"),
        ("linear_backward", "overwritten", "dweight"),
        ("linear_backward", "added", "dinp"),
        ("layernorm_backward", "overwritten", "dweight"),
    ],
)
def test_mistakes_are_found(operation: str, fault: str, tensor: str, dtype: str) -> None:
    dims = {"N": 97, "C": 385, "OC": 65}
    case = Case(operation, dims)
    wrong = [result for result in compare(case, dtype, faulty(operation, fault), "numpy") if not result.ok]
    assert tensor in [result.tensor for result in wrong]


def test_a_difference_says_where_and_how_much() -> None:
    expected = np.array([[1.0, 2.0], [4.0, 3.0]])
    actual = expected.copy()
    actual[1, 1] += 0.4
    result = difference("dinp", actual, expected, 0.01, case="linear")
    assert (result.index, result.value_b) == ((1, 1), 3.0)
    assert not result.ok
    assert str(result) == "linear: dinp[1, 1] is 3.4 against 3; error 0.1, 10 of the tolerance 0.01"


def test_nan_equals_only_nan() -> None:
    nan, inf = np.array([np.nan]), np.array([np.inf])
    assert difference("x", nan, nan, 0.0).ok
    assert difference("x", inf, inf, 0.0).ok
    for a, b in [(nan, np.ones(1)), (np.ones(1), nan), (inf, -inf), (inf, nan), (inf, np.ones(1))]:
        assert not difference("x", a, b, 1.0).ok
