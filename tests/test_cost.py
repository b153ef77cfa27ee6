"""The contract's cost models, against what the formulas do when each operation on a number is counted."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest

from bevia_fast.bench_kernels import SCALES, job, letters_of
from bevia_fast.bench_step import StepSize, TrainingStep
from bevia_fast.comparison import Case, make_arguments
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.profile_steps import Listener


class Counted:
    """A number that counts what is done with it."""

    done: ClassVar[Counter[str]] = Counter()

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def _with(self, name: str, value: float) -> Counted:
        Counted.done[name] += 1
        return Counted(value)

    def __add__(self, other: Any) -> Counted:
        return self._with("add", self.value + _value(other))

    def __sub__(self, other: Any) -> Counted:
        return self._with("add", self.value - _value(other))

    def __rsub__(self, other: Any) -> Counted:
        return self._with("add", _value(other) - self.value)

    def __mul__(self, other: Any) -> Counted:
        return self._with("multiply", self.value * _value(other))

    def __truediv__(self, other: Any) -> Counted:
        return self._with("divide", self.value / _value(other))

    def __rtruediv__(self, other: Any) -> Counted:
        return self._with("divide", _value(other) / self.value)

    __radd__, __rmul__ = __add__, __mul__

    def sqrt(self) -> Counted:
        return self._with("function", math.sqrt(self.value))

    def exp(self) -> Counted:
        return self._with("function", math.exp(self.value))

    def __gt__(self, other: Any) -> bool:
        return self.value > _value(other)


def _value(number: Any) -> float:
    return number.value if isinstance(number, Counted) else float(number)


def counted(case: Case) -> Counter[str]:
    """What the NumPy kernel, without the contract's checks, does to single numbers."""
    arguments = make_arguments(case, "float64")
    for name, array in arguments.items():
        if isinstance(array, np.ndarray) and array.dtype == np.float64:
            arguments[name] = np.array([Counted(x) for x in array.ravel()], object).reshape(array.shape)
    Counted.done = Counter()
    getattr(get_backend("numpy"), case.operation).__wrapped__(**arguments)
    return Counted.done


@pytest.mark.parametrize("sizes", [(3, 5, 7), (6, 4, 2)])
def test_products_are_counted_exactly(sizes: tuple[int, int, int]) -> None:
    N, C, OC = sizes
    dims = {"N": N, "C": C, "OC": OC}
    done = counted(Case("linear_forward", dims))
    assert done["multiply"] * 2 == OPERATIONS["linear_forward"].cost_of(dims, (), "float64", {}).flops
    done = counted(Case("linear_backward", dims))
    assert done["multiply"] * 2 == OPERATIONS["linear_backward"].cost_of(dims, (), "float64", {}).flops


@pytest.mark.parametrize(
    ("operation", "given"), [("layernorm_forward", ("bias",)), ("layernorm_backward", ("dbias", "dresidual"))]
)
def test_layernorm_is_counted_to_within_a_few_operations(operation: str, given: tuple[str, ...]) -> None:
    """An element is what counts; a row costs a little beside it."""
    dims = {"N": 3, "C": 64}
    done = counted(Case(operation, dims, given))
    assert done.total() == pytest.approx(OPERATIONS[operation].cost_of(dims, given, "float64", {}).flops, rel=0.15)


@pytest.mark.parametrize(("T", "first", "R"), [(1, 0, 1), (7, 0, 7), (9, 4, 3)])
def test_attention_counts_the_pairs_that_see_each_other(T: int, first: int, R: int) -> None:
    B, NH, HS = 2, 3, 5
    pairs = B * NH * sum(1 for i in range(T) for j in range(T) if j <= i)
    dims = {"B": B, "T": T, "NH": NH, "HS": HS, "C": NH * HS, "R": R, "S": T}

    def flops(operation: str, **options: int) -> float:
        return OPERATIONS[operation].cost_of(dims, (), "float32", options).flops

    assert flops("attention_forward") == 2 * 2 * pairs * HS  # q k, weights v
    assert flops("attention_backward") == 5 * 2 * pairs * HS  # q k, dout v, and dq, dk, dv
    seen = B * NH * sum(i + 1 for i in range(first, first + R))
    assert flops("attention_weights", first=first) == 2 * seen * HS
    assert flops("attention_decode", position=first) == 2 * 2 * B * NH * (first + 1) * HS


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("float64", 8)])
def test_bytes_are_those_of_the_arrays(operation: str, dtype: str, itemsize: int) -> None:
    one = job(operation, letters_of(ctx=6, batch=3, heads=2, dim=8, vocab=11))
    arguments = make_arguments(one.case, dtype)
    entry = OPERATIONS[operation]
    expected = 0
    for name, array in arguments.items():
        if isinstance(array, np.ndarray):
            expected += array.nbytes * (2 if name in entry.twice else 1)
    assert entry.cost(**arguments).bytes == expected
    assert one.cost(dtype) == entry.cost(**arguments)


def test_of_a_large_table_only_the_rows_asked_for_are_moved() -> None:
    dims = {"B": 2, "T": 3, "V": 1000, "C": 4}
    small = dims | {"V": 6}
    for operation in ("embedding_forward", "embedding_backward"):
        costs = [OPERATIONS[operation].cost_of(letters, (), "float32", {}) for letters in (dims, small)]
        assert costs[0] == costs[1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_twice_as_many_rows_cost_twice_as_much(operation: str) -> None:
    if operation in ("attention_decode", "squared_norm", "adamw"):
        return
    letters = letters_of(**SCALES["small"])
    double = letters | {"N": 2 * letters["N"], "B": 2 * letters["B"]}
    costs = [job(operation, sizes).cost("float32") for sizes in (letters, double)]
    assert costs[1].flops == 2 * costs[0].flops
    assert costs[0].bytes < costs[1].bytes <= 2 * costs[0].bytes


def test_a_step_costs_what_its_calls_cost() -> None:
    """The formula against the sum over the products of a real step."""
    size = StepSize(ctx=12, dim=24, layers=3, heads=2, batch=4, vocab=17)
    backend = get_backend("numpy")
    listener: Any = Listener(backend)
    step = TrainingStep(size, backend)
    step.backend = step.model.backend = listener
    step.run()
    total = 0.0
    for operation, args, kwargs in listener.called:
        if operation.startswith(("linear", "attention")):
            bound = OPERATIONS[operation].signature.bind(*args, **kwargs).arguments
            total += OPERATIONS[operation].cost(**bound).flops
    assert total == size.flops
