"""How an operation is declared: its signature, the shapes of its arrays and its cost.

    @operation(lambda d: 2 * d["N"] * d["C"], out="N C!", inp="N C")
    def double(out: Array, inp: Array) -> None:
        \"\"\"out = 2 * inp\"\"\"

The first argument gives the floating-point operations of a call. The keywords give the shape of each array:

    "B T 3*C"        floats, of this shape
    "int32<V B T"    token ids below V
    ?   may be None        ~   in either memory order        !   an output
    ^   with precision "bf16", bfloat16 numbers as uint16; see `kernels.bfloat16`

A letter stands for the same size in all arrays of a call.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .costs import Cost

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")


class ContractError(ValueError):
    """An argument of a kernel breaks the contract."""


@dataclass(frozen=True)
class ArraySpec:
    """An array argument. Each of `dims` is a product of letters and numbers, such as `3*C`."""

    name: str
    dims: tuple[str, ...]
    optional: bool
    either_order: bool
    below: str | None  # for token ids, the letter that bounds them; None for floats
    output: bool
    halves: bool = False  # bfloat16 numbers as uint16, if the precision is "bf16"

    @classmethod
    def parse(cls, name: str, text: str) -> ArraySpec:
        """Read the notation of a declaration. Raises ValueError if it is none."""
        match = re.fullmatch(r"(?:int32<(\w+) )?([\w* ]+?)(\??)(~?)(\^?)(!?)", text)
        if match is None:
            raise ValueError(f"unreadable shape {text!r} of {name}")
        below, dims, optional, either, halves, output = match.groups()
        return cls(name, tuple(dims.split()), bool(optional), bool(either), below, bool(output), bool(halves))

    def wanted(self) -> str:
        """The shape as error messages print it, such as `(B, T, 3*C)`."""
        return "(" + ", ".join(self.dims) + ("," if len(self.dims) == 1 else "") + ")"

    def shape(self, letters: Mapping[str, int]) -> tuple[int, ...]:
        """The shape for these sizes of the letters."""
        sizes = []
        for dim in self.dims:
            size = 1
            for factor in dim.split("*"):
                size *= int(factor) if factor.isdigit() else letters[factor]
            sizes.append(size)
        return tuple(sizes)


@dataclass(frozen=True)
class Operation:
    """An operation of the contract."""

    name: str
    signature: inspect.Signature
    arrays: tuple[ArraySpec, ...]
    flops: Callable[[dict[str, Any]], float]  # of the letters, the options, and 1 or 0 for each optional array
    twice: frozenset[str]  # arrays that are both read and written
    gathered: frozenset[str]  # tables from which one row per token is taken
    divides: tuple[str, str] | None  # (divisor, dividend)
    doc: str

    def dims(self, arguments: dict[str, Any]) -> dict[str, int]:
        """Check the arrays among the arguments; return the size of each letter. Raises ContractError."""
        letters: dict[str, int] = {}
        dtype: np.dtype[Any] | None = None
        for spec in self.arrays:
            array = arguments.get(spec.name)
            if array is None:
                if spec.optional:
                    continue
                raise ContractError(f"{self.name}: {spec.name} is missing; wanted an array {spec.wanted()}")
            if not isinstance(array, np.ndarray):
                raise ContractError(f"{self.name}: {spec.name} is a {type(array).__name__}; wanted a NumPy array")
            if spec.halves and arguments.get("precision") == "bf16":
                if array.dtype != np.uint16:
                    raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted uint16")
            else:
                dtype = self._check_dtype(spec, array, dtype)
            self._check_layout(spec, array)
            self._bind(spec, array, letters)
        if self.divides is not None:
            divisor, dividend = (letters[letter] for letter in self.divides)
            if dividend % divisor:
                raise ContractError(f"{self.name}: {self.divides[1]} = {dividend} is not divisible by "
                                    f"{self.divides[0]} = {divisor}")  # fmt: skip
        return letters

    def check_outputs(self, arguments: dict[str, Any]) -> None:
        """Raise ContractError if an output is read-only."""
        for spec in self.arrays:
            if spec.output and arguments.get(spec.name) is not None and not arguments[spec.name].flags.writeable:
                raise ContractError(f"{self.name}: {spec.name} is read-only; wanted an array to write to")

    def _check_dtype(self, spec: ArraySpec, array: Array, dtype: np.dtype[Any] | None) -> np.dtype[Any] | None:
        """Check an array against the dtype of the arrays before it; return the dtype of all of them."""
        if spec.below is not None:
            if array.dtype != np.int32:
                raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted int32")
            return dtype
        if array.dtype not in (np.float32, np.float64):
            raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted float32 or float64")
        if dtype is not None and array.dtype != dtype:
            raise ContractError(f"{self.name}: {spec.name} has dtype {array.dtype}; wanted {dtype} as the others")
        return array.dtype

    def _check_layout(self, spec: ArraySpec, array: Array) -> None:
        if array.flags.c_contiguous or (spec.either_order and array.flags.f_contiguous):
            return
        raise ContractError(f"{self.name}: {spec.name} of shape {array.shape} is not contiguous; "
                            f"wanted C order{' or its transpose' if spec.either_order else ''}")  # fmt: skip

    def _bind(self, spec: ArraySpec, array: Array, letters: dict[str, int]) -> None:
        """Compare an array's shape with its spec. A letter without a size takes the size found."""
        known_letters = ", ".join(f"{letter} = {size}" for letter, size in letters.items())
        fits = array.ndim == len(spec.dims)
        if fits:
            for size, dim in zip(array.shape, spec.dims, strict=True):
                known, unknown = 1, None
                for factor in dim.split("*"):
                    if factor.isdigit():
                        known *= int(factor)
                    elif factor in letters:
                        known *= letters[factor]
                    else:
                        unknown = factor
                if unknown is not None and size % known == 0 and size > 0:
                    letters[unknown] = size // known
                elif unknown is not None or size != known:
                    fits = False
        if not fits:
            raise ContractError(f"{self.name}: {spec.name} has shape {array.shape}; wanted {spec.wanted()}"
                                f"{' with ' + known_letters if known_letters else ''}")  # fmt: skip

    def cost(self, **arguments: Any) -> Cost:
        """The least work of a call with these arguments. Raises ContractError."""
        given = [spec.name for spec in self.arrays if spec.optional and arguments.get(spec.name) is not None]
        dtype = next(arguments[spec.name].dtype for spec in self.arrays if not spec.below)
        return self.cost_of(self.dims(arguments), given, dtype, arguments)

    def cost_of(
        self, letters: Mapping[str, int], given: Collection[str], dtype: DTypeLike, options: Mapping[str, Any]
    ) -> Cost:
        """The least work of a call with arrays of these sizes.

        `given` names the optional arrays that are not None; `options` holds the numbers and tuples among the arguments.
        """
        itemsize, nbytes, held = np.dtype(dtype).itemsize, 0, 0
        for spec in self.arrays:
            if spec.optional and spec.name not in given:
                continue
            shape = spec.shape(letters)
            if spec.name in self.gathered:
                shape = (min(shape[0], letters["B"] * letters["T"]), *shape[1:])
            halved = spec.halves and options.get("precision") == "bf16"
            size = math.prod(shape) * (4 if spec.below else 2 if halved else itemsize)
            nbytes += size * (2 if spec.name in self.twice else 1)
            held += size
        numbers = {name: value for name, value in options.items() if isinstance(value, int | tuple)}
        present = {spec.name: int(spec.name in given) for spec in self.arrays if spec.optional}
        return Cost(float(self.flops({**numbers, **present, **letters})), float(nbytes), float(held))


OPERATIONS: dict[str, Operation] = {}  # complete once `kernels.operations` is imported


def operation(
    flops: Callable[[dict[str, Any]], float],
    *,
    twice: tuple[str, ...] = (),
    gathered: tuple[str, ...] = (),
    divides: tuple[str, str] | None = None,
    **arrays: str,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declare a function without a body as an operation. See `Operation` for the arguments."""

    def enter(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__
        specs = tuple(ArraySpec.parse(key, text) for key, text in arrays.items())
        doc = inspect.getdoc(function) or ""
        OPERATIONS[name] = Operation(
            name, inspect.signature(function), specs, flops, frozenset(twice), frozenset(gathered), divides, doc
        )
        return function

    return enter
