"""Make the same kernel call on two backends, and measure how far the results differ.

    for operation in OPERATIONS:
        for case in cases(operation):
            for result in compare(case, "float32", "numba", "numpy"):
                assert result.ok, result

The arrays of a call hold normally distributed random numbers from a fixed seed. Outputs are filled with noise
beforehand, so a kernel that adds where it should overwrite, or the reverse, cannot pass. The calls are listed in
`cases`, the limits in `tolerances`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..kernels import get_backend
from ..kernels.bfloat16 import halves, widened
from ..kernels.contract import OPERATIONS, Backend
from .tolerances import TINY, largest, outputs, scale, tolerance

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One call of an operation.

    `dims`: the sizes behind the letters of the contract's shapes. `given`: the optional arrays that are passed.
    `options`: the arguments that are not arrays. `transposed`: pass weights in F order where that is allowed.
    `in_place`: the names of an output and an input that are the same array. `spread`: the standard deviation of the
    random numbers.
    """

    operation: str
    dims: Mapping[str, int]
    given: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    transposed: bool = False
    in_place: tuple[str, str] | None = None
    spread: float = 1.0

    def __str__(self) -> str:
        parts = [self.operation, "x".join(f"{letter}{size}" for letter, size in self.dims.items()), *self.given]
        parts += [f"{name}={_in_short(value)}" for name, value in self.options.items()]
        parts += ["transposed"] * self.transposed
        parts += ["{}-is-{}".format(*self.in_place)] if self.in_place else []
        parts += [f"spread={self.spread:g}"] if self.spread != 1.0 else []
        return "-".join(parts)


def _in_short(value: Any) -> Any:
    """Return an option as a case's name has it."""
    if isinstance(value, tuple):  # matrices, or windows
        return "+".join("x".join(map(str, part[1:3])) if isinstance(part, tuple) else str(part) for part in value)
    return value


@dataclass(frozen=True)
class Comparison:
    """The difference between two backends in one array. `error` is relative to the array's scale; see `tolerances`."""

    case: str
    tensor: str
    error: float
    tolerance: float
    index: tuple[int, ...]  # where the difference is largest
    value_a: float
    value_b: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error divided by the tolerance; above 1 it is too large."""
        if self.error == 0.0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else float("inf")

    def __str__(self) -> str:
        limit = f"{self.share:.3g} times the tolerance {self.tolerance:.3g}" if self.tolerance else "none is allowed"
        return (
            f"{self.case}: {self.tensor}{list(self.index)} is {self.value_a:.9g}, expected {self.value_b:.9g}; "
            f"error {self.error:.3g}, {limit}"
        )


def worst_of(comparisons: Iterable[Comparison]) -> Comparison:
    """Return the comparison closest to its tolerance, or furthest beyond it."""
    return max(comparisons, key=lambda comparison: comparison.share)


def difference(
    tensor: str, a: Array, b: Array, tolerance: float, relative_to: float | None = None, case: str = ""
) -> Comparison:
    """Compare array `a` with the reference `b` and return the largest difference.

    Errors are relative to `relative_to`, by default the largest |b|. NaN equals only NaN, an infinity only itself.
    Raises ValueError if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"{tensor} has shape {a.shape}, expected {b.shape}")
    a64, b64 = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.abs(a64 - b64)
    distance = np.where((a64 == b64) | (np.isnan(a64) & np.isnan(b64)), 0.0, distance)
    distance = np.where(np.isnan(distance), np.inf, distance)
    where = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
    if relative_to is None:
        relative_to = max(largest(b64), TINY)
    error = float(distance[where]) / relative_to
    return Comparison(case, tensor, error, tolerance, where, float(a64[where]), float(b64[where]))


def make_arguments(case: Case, dtype: DTypeLike, seed: int = 0) -> dict[str, Any]:
    """Return the arguments of the call by name, in new arrays. The same case, dtype and seed give the same values.

    float32 arguments are the float64 ones, rounded. Arrays that a forward pass saves (mean, rstd, lse, ...) hold what
    the NumPy backend saves for these inputs.
    """
    entry = OPERATIONS[case.operation]
    generator = np.random.default_rng([seed, zlib.crc32(str(case).encode())])
    arguments: dict[str, Any] = {}
    for spec in entry.arrays:
        shape = spec.shape(case.dims)
        if spec.below is not None:
            arguments[spec.name] = generator.integers(0, case.dims[spec.below], shape).astype(np.int32)
        else:
            flip = case.transposed and spec.either_order
            numbers = generator.normal(0.0, case.spread, shape[::-1] if flip else shape).astype(dtype)
            if spec.halves and case.options.get("precision") == "bf16":
                numbers = halves(numbers)
            arguments[spec.name] = numbers.T if flip else numbers
        if spec.optional and spec.name not in case.given:
            arguments[spec.name] = None
    arguments.update(case.options)
    _fill_dependent(case.operation, arguments)
    if case.in_place is not None:
        output, other = case.in_place
        arguments[output] = arguments[other]
    return {name: arguments[name] for name in entry.signature.parameters if name in arguments}


def _fill_dependent(operation: str, arguments: dict[str, Any]) -> None:
    """Replace the noise in arguments that depend on other arguments."""
    numpy = get_backend("numpy")
    if operation == "layernorm_backward":
        inp, weight = arguments["inp"], arguments["weight"]
        numpy.layernorm_forward(np.empty_like(inp), arguments["mean"], arguments["rstd"], inp, weight, None)
    elif operation == "linear_backward" and arguments["preactivation"] is not None:
        forward = getattr(numpy, f"{arguments.get('activation') or 'gelu'}_forward")
        forward(arguments["inp"], arguments["preactivation"])
    elif operation == "attention_backward":
        dropout = {name: arguments[name] for name in ("dropout_rate", "dropout_key") if name in arguments}
        numpy.attention_forward(arguments["out"], arguments["lse"], arguments["qkv"], **dropout)
    elif operation == "adamw":
        arguments["second_moment"] **= 2  # a mean of squares


def run(backend: Backend, case: Case, arguments: Mapping[str, Any]) -> dict[str, Array]:
    """Make the call and return its outputs by name."""
    with np.errstate(all="ignore"):
        returned = getattr(backend, case.operation)(**arguments)
    results = {"return": np.asarray(returned), **arguments}
    found = {name: results[name] for name in outputs(case.operation) if results.get(name) is not None}
    return {name: widened(value) if value.dtype == np.uint16 else value for name, value in found.items()}


def compare(
    case: Case, dtype: DTypeLike, a: str | Backend = "numba", b: str | Backend = "numpy", seed: int = 0
) -> list[Comparison]:
    """Make the same call on backend `a` and on the reference `b`, and compare the results.

    With dtype "bf16", the arrays are of float32 and the precision is "bf16", which not all operations have.

    Returns one comparison per output, and one with tolerance 0 per input that backend `a` must not change.
    """
    backend_a = get_backend(a) if isinstance(a, str) else a
    backend_b = get_backend(b) if isinstance(b, str) else b
    if dtype == "bf16":
        case = replace(case, options={**case.options, "precision": "bf16"})
    of_arrays = "float32" if dtype == "bf16" else dtype
    untouched, arguments_a, arguments_b = (make_arguments(case, of_arrays, seed) for _ in range(3))
    results_a, results_b = run(backend_a, case, arguments_a), run(backend_b, case, arguments_b)
    if case.in_place is not None:  # the output has overwritten this input, on which the scale of the error may depend
        arguments_b[case.in_place[1]] = untouched[case.in_place[1]]
    comparisons = []
    for name, expected in results_b.items():
        limit = tolerance(case.operation, name, dtype, case.dims)
        relative_to = scale(case.operation, name, expected, arguments_b)
        comparisons.append(difference(name, results_a[name], expected, limit, relative_to, str(case)))
    for name, array in untouched.items():
        if isinstance(array, np.ndarray) and name not in results_b and name not in (case.in_place or ()):
            comparisons.append(difference(name, arguments_a[name], array, 0.0, None, str(case)))
    return comparisons
