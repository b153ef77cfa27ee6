"""The contract's cost models, against what the formulas do when each operation on a number is counted."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest

from bevia_fast.agreement.comparison import Case, make_arguments
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import FUNCTION, OPERATIONS
from bevia_fast.kernels.instruments import Listener
from bevia_fast.kernels.numpy_ref import activation
from bevia_fast.measuring.kernel_jobs import SCALES, job, letters_of
from bevia_fast.measuring.training_step import StepSize, TrainingStep


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


class CountedArray(np.ndarray):
    """An array that counts what is done with its elements, by the contract's rules."""

    done: ClassVar[int] = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, CountedArray) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, CountedArray) else x for x in kwargs["out"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        times = {"__call__": np.size(result), "reduce": np.size(plain[0]) - np.size(result)}[method]
        CountedArray.done += times * (FUNCTION if ufunc in (np.exp, np.log, np.tanh) else 1)
        return result.view(CountedArray) if isinstance(result, np.ndarray) else result


def done(case: Case) -> int:
    """How many operations the NumPy kernel, without the contract's checks, makes."""
    arguments = make_arguments(case, "float64")
    for name, array in arguments.items():
        if isinstance(array, np.ndarray) and array.dtype == np.float64:
            arguments[name] = array.view(CountedArray)
    CountedArray.done = 0
    getattr(get_backend("numpy"), case.operation).__wrapped__(**arguments)
    return CountedArray.done


COUNTED_ELSEWHERE = ("linear", "attention", "decode", "muon")
PRODUCTS = [name for name in OPERATIONS if name.startswith(COUNTED_ELSEWHERE)]
ONE_BY_ONE = ["sample_token"]  # takes exp of single numbers, which no array sees


def cdf_of_one_function(x: np.ndarray) -> np.ndarray:
    """(1 + erf(x/sqrt(2)))/2, where the error function counts as one: how many terms its series takes is no cost of the
    operation. np.tanh stands in for it."""
    return 0.5 * (1.0 + np.tanh(x * math.sqrt(0.5)))


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in PRODUCTS + ONE_BY_ONE])
@pytest.mark.parametrize("all_given", [False, True])
def test_what_is_no_product_is_counted_exactly(
    operation: str, all_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By how much a call grows with its rows: what is done once a row falls out, and is little."""
    monkeypatch.setattr(activation, "normal_cdf", cdf_of_one_function)
    entry = OPERATIONS[operation]
    given = tuple(spec.name for spec in entry.arrays if spec.optional and all_given)
    found, modeled = [], []
    for width in (16, 48):
        one = job(operation, letters_of(ctx=3, batch=2, heads=1, dim=width, vocab=width) | {"P": width})
        rows = math.prod(one.dims.get(letter, 1) for letter in "BTN")
        found.append(done(Case(operation, one.dims, given, one.options)))
        modeled.append(entry.cost_of(one.dims, given, "float64", one.options).flops)
        assert -2 * rows <= found[-1] - modeled[-1] <= (FUNCTION + 4) * rows
    assert found[1] - found[0] == modeled[1] - modeled[0]
    assert (modeled[1] == modeled[0]) == (operation == "embedding_forward" and not all_given)  # which copies rows


@pytest.mark.parametrize("decayed", [0, 7, 20])
def test_only_what_decays_is_counted_as_decaying(decayed: int) -> None:
    options = {**job("adamw", {"P": 20}).options, "decayed": decayed}
    cost = OPERATIONS["adamw"].cost_of({"P": 20}, (), "float64", options)
    assert done(Case("adamw", {"P": 20}, (), options)) == cost.flops


@pytest.mark.parametrize(("T", "first", "R"), [(1, 0, 1), (7, 0, 7), (9, 4, 3), (9, 2, 6)])
@pytest.mark.parametrize("window", [0, 1, 4, 7, 8, 20])
def test_attention_counts_the_pairs_that_see_each_other(T: int, first: int, R: int, window: int) -> None:
    B, NH, HS = 2, 3, 5
    pairs = B * NH * sum(1 for i in range(T) for j in range(T) if 0 <= i - j < (window or T))
    dims = {"B": B, "T": T, "NH": NH, "HS": HS, "C": NH * HS, "R": R}

    def flops(operation: str, **options: int) -> float:
        return OPERATIONS[operation].cost_of(dims, (), "float32", {**options, "window": window}).flops

    assert flops("attention_forward") == 2 * 2 * pairs * HS  # q k, weights v
    assert flops("attention_backward") == 5 * 2 * pairs * HS  # q k, dout v, and dq, dk, dv
    seen = B * NH * sum(min(i + 1, window or T) for i in range(first, first + R))
    assert flops("attention_weights", first=first) == 2 * seen * HS


def test_decoding_counts_each_place_of_each_token() -> None:
    """With 4 slots a window begins 3 tokens behind the one before; tokens 2 to 4 stand at 2, at 3 and 0, at 1."""
    L, NH, HS, C, G, M, V, D = 2, 3, 5, 7, 2, 11, 13, 3
    dims = {"D": D, "V": V, "L": L, "NH": NH, "HS": HS, "S": 4, "C": C, "G": G, "M": M, "K": 2, "H": 2}
    places = [2, 3, 0, 1]
    layer = sum(4 * NH * HS * C + 2 * C * G * M + 2 * NH * HS * (place + 1) for place in places)
    cost = OPERATIONS["decode_tokens"].cost_of(dims, (), "float32", {"index": 2, "token": 0})
    assert cost.flops == 2 * (L * layer + D * C * V)

    # in a ring of 4, each token stands at one place and sees up to 4: tokens 2 to 4 see 3, 4 and 4
    layer = sum(4 * NH * HS * C + 2 * C * G * M + 2 * NH * HS * seen for seen in (3, 4, 4))
    given = ("cosines", "sines")
    cost = OPERATIONS["decode_tokens"].cost_of(dims | {"K": 1}, given, "float32", {"index": 2, "token": 0})
    assert cost.flops == 2 * (L * layer + D * C * V)

    # with a window of 2 in the first layer, that sees 2, 2 and 2
    call = {"index": 2, "token": 0, "windows": (2, 0)}
    cost = OPERATIONS["decode_tokens"].cost_of(dims | {"K": 1}, given, "float32", call)
    assert cost.flops == 2 * (L * layer - 2 * NH * HS * (1 + 2 + 2) + D * C * V)


def moved(case: Case, dtype: str) -> int:
    """Bytes of the arrays that a call reads and of those that it writes, found out by trying: an array is read if
    results are others where it holds other numbers, and written if most of it has changed."""

    def results(changed: str) -> tuple[dict[str, Any], dict[str, Any]]:
        before, other = make_arguments(case, dtype), make_arguments(case, dtype, seed=1)
        if "tokens" in before:  # so that each row of a table is asked for
            before["tokens"].flat = other["tokens"].flat = np.arange(before["tokens"].size) % case.dims["V"]
            other["tokens"].flat = before["tokens"].flat[::-1]
        if changed:
            before[changed] = other[changed]
        after = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in before.items()}
        returned = getattr(get_backend("numpy"), case.operation)(**after)
        return before, {**after, "return": returned}

    before, usual = results("")
    arrays = [name for name, value in before.items() if isinstance(value, np.ndarray)]
    written = [name for name in arrays if (before[name] != usual[name]).mean() > 0.5]
    total = sum(before[name].nbytes for name in written)
    for name in arrays:
        _, after = results(name)
        if any(not np.array_equal(after[output], usual[output]) for output in [*written, "return"]):
            total += int(before[name].nbytes)
    return total


# `decode_tokens` writes as many slots of its caches as it draws tokens, here more than there are; they count as read.
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "decode_tokens"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("all_given", [False, True])
def test_bytes_are_those_of_the_arrays_read_and_written(operation: str, dtype: str, all_given: bool) -> None:
    entry = OPERATIONS[operation]
    one = job(operation, letters_of(ctx=6, batch=3, heads=2, dim=8, vocab=11))
    given = tuple(spec.name for spec in entry.arrays if spec.optional and all_given)
    options = dict(one.options)
    if all_given and operation == "linear_backward":
        options["activation"] = "gelu"  # without it, there is nothing to be done with a preactivation
    case = Case(operation, one.dims, given, options)
    cost = entry.cost(**make_arguments(case, dtype))
    assert cost == entry.cost_of(one.dims, given, dtype, options)
    assert cost.bytes == moved(case, dtype)


def test_of_a_large_table_only_the_rows_asked_for_are_moved() -> None:
    dims = {"B": 2, "T": 3, "V": 1000, "C": 4}
    small = dims | {"V": 6}
    for operation in ("embedding_forward", "embedding_backward"):
        costs = [OPERATIONS[operation].cost_of(letters, (), "float32", {}) for letters in (dims, small)]
        assert costs[0] == costs[1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_twice_as_many_rows_cost_twice_as_much(operation: str) -> None:
    if operation in ("decode_tokens", "sample_token", "squared_norm", "adamw", "muon"):
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
