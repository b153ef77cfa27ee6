"""A NaN that goes in comes out: a run that has diverged must not look healthy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bevia_fast.agreement.comparison import Case, difference, make_arguments, run
from bevia_fast.agreement.tolerances import outputs
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS, Backend, MatrixAt

ROWS = {"N": 37, "C": 19}
HEADS = {"B": 2, "T": 21, "NH": 2, "HS": 5, "C": 10}
USUAL = {"step": 2, "decayed": 9, "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 1e-8, "weight_decay": 0.1}
USUAL_MUON = {"learning_rate": 0.1, "beta": 0.9, "weight_decay": 0.1}
CALLS = [
    Case("embedding_forward", {"B": 3, "T": 7, "V": 2, "C": 19}, ("position_table",)),
    Case("embedding_backward", {"B": 3, "T": 7, "V": 2, "C": 19}, ("dposition_table",)),
    Case("rotary_forward", {"B": 2, "T": 7, "NH": 3, "H": 5}),
    Case("rotary_backward", {"B": 2, "T": 7, "NH": 3, "H": 5}),
    Case("layernorm_forward", ROWS, ("bias",)),
    Case("layernorm_backward", ROWS, ("dbias", "dresidual")),
    Case("linear_forward", ROWS | {"OC": 23}, ("bias", "residual")),
    Case("linear_forward", ROWS | {"OC": 23}, ("bias", "preactivation"), {"activation": "gelu"}),
    Case("linear_forward", ROWS | {"OC": 23}, ("bias",), {"activation": "relu"}, transposed=True),
    Case("linear_backward", ROWS | {"OC": 23}, ("dbias", "dresidual")),
    Case("linear_backward", ROWS | {"OC": 23}, ("dbias", "preactivation"), {"activation": "gelu"}, transposed=True),
    Case("relu_forward", ROWS),
    Case("gelu_forward", ROWS),
    Case("gelu_backward", ROWS),
    Case("gelu_erf_forward", ROWS),
    Case("gelu_erf_backward", ROWS),
    Case("linear_forward", ROWS | {"OC": 23}, ("bias",), {"activation": "gelu_erf"}),
    Case("linear_backward", ROWS | {"OC": 23}, ("preactivation",), {"activation": "gelu_erf"}),
    Case("attention_forward", HEADS),
    Case("attention_forward", HEADS, options={"dropout_rate": 0.1, "dropout_key": 3}),
    Case("attention_backward", HEADS),
    Case("attention_backward", HEADS, options={"dropout_rate": 0.1, "dropout_key": 3}),
    Case("dropout_forward", ROWS, ("residual",), {"rate": 0.0, "key": 1}),
    Case("cross_entropy", {"N": 37, "V": 19}, ("dlogits",)),
    Case("squared_norm", {"P": 1021}),
    Case("adamw", {"P": 1021}, options=USUAL),
    Case("muon", {"P": 35 * 29}, options=USUAL_MUON | {"matrices": (MatrixAt(0, 35, 29, 29),)}),
]  # fmt: skip

# A NaN in what decides about a gradient, and not in the gradient, is lost: it shows in the forward pass.
CHOICES = [
    Case("relu_backward", ROWS),
    Case("linear_backward", ROWS | {"OC": 23}, ("dbias", "preactivation"), {"activation": "relu"}),
]


def inputs(case: Case) -> list[str]:
    """The floating arrays that the call reads."""
    entry = OPERATIONS[case.operation]
    read = [spec.name for spec in entry.arrays if spec.below is None]
    written = set(outputs(case.operation)) - entry.twice
    return [name for name in read if name not in written and (name in case.given or not is_optional(case, name))]


def is_optional(case: Case, name: str) -> bool:
    return any(spec.optional for spec in OPERATIONS[case.operation].arrays if spec.name == name)


def poisoned(case: Case, dtype: str, name: str, place: int, value: float) -> dict[str, Any]:
    arguments = make_arguments(case, dtype)
    array = arguments[name]
    array[np.unravel_index(place % array.size, array.shape)] = value
    return arguments


def places(case: Case, name: str) -> list[int]:
    """First, somewhere, last; only places that the call reads: a cache slot that is being overwritten is none."""
    last = 0 if name in ("keys", "values") else -1
    return [0, 7, last]


@pytest.mark.parametrize("case", CALLS, ids=str)
def test_nan_in_nan_out(backend: Backend, case: Case, dtype: str) -> None:
    for name in inputs(case):
        for place in places(case, name):
            results = run(backend, case, poisoned(case, dtype, name, place, np.nan))
            assert any(np.isnan(result).any() for result in results.values()), f"NaN at {place} of {name} is lost"


@pytest.mark.parametrize("case", [case for case in CALLS + CHOICES if "attention" not in case.operation], ids=str)
def test_numba_has_nan_where_numpy_has(case: Case, dtype: str) -> None:
    """Nowhere else either: what is padded or shared between lanes and tiles must not spread it.

    Attention is left out: after a NaN, NumPy's 0 * NaN reaches back to positions that Numba never lets look ahead.
    """
    for name in inputs(case):
        for place in places(case, name):
            results, expected = (
                run(get_backend(backend), case, poisoned(case, dtype, name, place, np.nan))
                for backend in ("numba", "numpy")
            )
            for output in expected:
                nan = np.isnan(results[output]).astype(float), np.isnan(expected[output]).astype(float)
                result = difference(f"isnan({output}), NaN at {place} of {name},", *nan, tolerance=0.0)
                assert result.ok, str(result)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("linear_forward", "inp"),
        ("linear_forward", "weight"),
        ("linear_backward", "dout"),
        ("layernorm_forward", "inp"),
        ("layernorm_backward", "dout"),
        ("gelu_forward", "inp"),
        ("relu_forward", "inp"),
        ("cross_entropy", "logits"),
        ("squared_norm", "gradients"),
        ("adamw", "gradients"),
        ("muon", "gradients"),
    ],
)
def test_infinity_in_not_finite_out(backend: Backend, operation: str, name: str, dtype: str) -> None:
    case = next(case for case in CALLS if case.operation == operation)
    results = run(backend, case, poisoned(case, dtype, name, 7, np.inf))
    assert not all(np.isfinite(result).all() for result in results.values())
