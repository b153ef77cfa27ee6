"""The twins: the operations of the contract in plain loops, as the chapters print them.

A twin works on numbers and nested lists, in double precision. It takes the inputs of its operation by name, and returns
the outputs in the order of the contract, one value or a tuple. So it can be read without knowing NumPy, and compared
with any backend. The twin of an operation that adds to gradients returns what is to be added.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agreement.cases import cases
from ..agreement.comparison import Case, Comparison, difference, make_arguments, run
from ..agreement.tolerances import outputs, scale, tolerance
from ..kernels.contract import OPERATIONS, Backend
from .chapters import read_chapters

Array = NDArray[Any]
Twin = Callable[..., Any]

PARAMETERS = ("weight", "bias", "table")  # whose gradients are added to
MOST_FLOPS = 40_000  # of a call in plain loops: a few hundredths of a second


def namespace(up_to: str = "") -> dict[str, Any]:
    """Return what the chapters define, up to the chapter with this name, by default all of them."""
    found: dict[str, Any] = {}
    for chapter in read_chapters():
        for name, source in chapter.twins.items():
            exec(compile(source, f"<{chapter.name}: {name}>", "exec"), found)
        if chapter.name == up_to:
            break
    return found


def twins() -> SimpleNamespace:
    """Return the functions of the text in plain loops, such as `twins().softmax`."""
    return SimpleNamespace(**{name: value for name, value in namespace().items() if inspect.isfunction(value)})


def small_cases(operation: str, most_flops: float = MOST_FLOPS) -> list[Case]:
    """Return the cases of an operation that plain loops compute in a moment."""
    entry = OPERATIONS[operation]
    return [
        case for case in cases(operation)
        if entry.cost_of(case.dims, case.given, "float64", case.options).flops <= most_flops
    ]  # fmt: skip


def compare_with_twin(case: Case, dtype: str, backend: Backend, twin: Twin) -> list[Comparison]:
    """Make the same call on a backend and on a twin, and compare each output within the package's tolerances."""
    found = run(backend, case, make_arguments(case, dtype))
    arguments = make_arguments(case, dtype)
    expected = call(case.operation, twin, arguments)
    arguments = {**make_arguments(case, dtype), **expected}  # the scale of an error may depend on results
    return [
        difference(name, found[name], value, tolerance(case.operation, name, dtype, case.dims),
                   scale(case.operation, name, value, arguments), str(case))
        for name, value in expected.items() if name in found
    ]  # fmt: skip


def call(operation: str, twin: Twin, arguments: Mapping[str, Any]) -> dict[str, Array]:
    """Return the outputs of a twin by name, as arrays of the dtype of the arguments."""
    wanted = inspect.signature(twin).parameters
    returned = twin(**{name: _plain(value) for name, value in arguments.items() if name in wanted})
    names = outputs(operation)
    values = dict(zip(names, returned if len(names) > 1 else (returned,), strict=True))
    arrays: dict[str, Array] = {}
    for name, value in values.items():
        old = arguments.get(name)
        if isinstance(old, np.ndarray):
            adds = name in OPERATIONS[operation].twice and name.startswith("d") and name.endswith(PARAMETERS)
            exact = np.asarray(value, np.float64) + (np.asarray(old, np.float64) if adds else 0.0)
            arrays[name] = exact.astype(old.dtype)
        elif name == "return":
            arrays[name] = np.asarray(value)
    return arrays


def _plain(value: Any) -> Any:
    """Return an array as nested lists of Python's numbers; anything else as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value
