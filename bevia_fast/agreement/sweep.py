"""The cross-check: every kernel of one backend held against the other's, then the training of a small model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..kernels.contract import OPERATIONS, Backend
from .cases import cases
from .comparison import Comparison, compare

DTYPES: tuple[Literal["float32"], Literal["float64"]] = ("float32", "float64")


@dataclass(frozen=True)
class CheckRow:
    """A line of the table: the worst of several comparisons."""

    what: str
    dtype: str
    count: int
    worst: Comparison

    @property
    def ok(self) -> bool:
        return self.worst.ok

    @property
    def share(self) -> float:
        """The error as a share of what is allowed; above 1 it is too large."""
        return _share(self.worst)


def _share(comparison: Comparison) -> float:
    if comparison.error == 0.0:
        return 0.0
    return comparison.error / comparison.tolerance if comparison.tolerance else float("inf")


def row_of(what: str, dtype: str, count: int, comparisons: Iterable[Comparison]) -> CheckRow:
    return CheckRow(what, dtype, count, max(comparisons, key=_share))


def check_kernels(a: Backend, b: Backend, quick: bool = False) -> Iterator[CheckRow]:
    """Backend `a` held against the reference `b`: a row for each operation and dtype.

    `quick` takes a quarter of the cases.
    """
    for operation in OPERATIONS:
        chosen = cases(operation)[:: 4 if quick else 1]
        for dtype in DTYPES:
            found = [result for case in chosen for result in compare(case, dtype, a, b)]
            yield row_of(operation, dtype, len(chosen), found)


