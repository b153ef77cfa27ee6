"""The sweep: compare every kernel of one backend with the other's, on all cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..kernels.bfloat16 import has_precision
from ..kernels.contract import OPERATIONS, Backend
from .cases import cases
from .comparison import Comparison, compare, worst_of

DTYPES: tuple[Literal["float32"], Literal["float64"]] = ("float32", "float64")


def kinds(operation: str) -> tuple[str, ...]:
    """Return the dtypes in which an operation is compared; "bf16" is float32 with products of bfloat16."""
    return (*DTYPES, "bf16") if has_precision(operation) else DTYPES


@dataclass(frozen=True)
class CheckRow:
    """A row of the table that `check` prints: the worst of several comparisons."""

    what: str
    dtype: str
    count: int
    worst: Comparison

    @property
    def ok(self) -> bool:
        return self.worst.ok

    @property
    def share(self) -> float:
        """The error divided by the tolerance; above 1 it is too large."""
        return self.worst.share


def row_of(what: str, dtype: str, count: int, comparisons: Iterable[Comparison]) -> CheckRow:
    """Return the row for the worst of `comparisons`, which were made on `count` cases."""
    return CheckRow(what, dtype, count, worst_of(comparisons))


def check_kernels(a: Backend, b: Backend, quick: bool = False) -> Iterator[CheckRow]:
    """Compare backend `a` with the reference `b`, and yield a row for each operation and dtype.

    `quick` takes a quarter of the cases.
    """
    for operation in OPERATIONS:
        chosen = cases(operation)[:: 4 if quick else 1]
        for dtype in kinds(operation):
            found = [result for case in chosen for result in compare(case, dtype, a, b)]
            yield row_of(operation, dtype, len(chosen), found)
