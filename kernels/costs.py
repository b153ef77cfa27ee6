"""The least work of an operation: floating-point operations, and bytes moved between memory and the core.

Operations on elements count. An addition, multiplication, division, square root, comparison or maximum is one
operation; an exponential, logarithm, hyperbolic tangent or error function is FUNCTION operations, about what the
polynomial of an exponential takes. Work per row and dropout's integer arithmetic do not count. In an operation with
matrix products, only the products count.

Arrays count in full: once if they are read or written, twice if both. A table from which rows are gathered counts no
more rows than there are, and no more than are gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .newton_schulz import COEFFICIENTS, RESTART
from .windows import places_of, ring_place, rings

FUNCTION = 8


@dataclass(frozen=True)
class Cost:
    """The least work of a call. `held`: the bytes of its arrays, each counted once; 0 means as many as `bytes`."""

    flops: float
    bytes: float
    held: float = 0.0

    @property
    def working_set(self) -> float:
        """The bytes that a cache must have to hold the arrays."""
        return self.held or self.bytes

    @property
    def intensity(self) -> float:
        """Floating-point operations per byte."""
        return self.flops / self.bytes


def pairs_seen(rows: int, window: int = 0, first: int = 0) -> int:
    """The pairs of a query and a key that it sees, for the queries first .. first + rows - 1: query i sees i + 1 keys,
    or the last `window` of them."""
    last = first + rows
    limit = min(max(first, window or last), last)  # queries from here on see `window` keys
    return (limit * (limit + 1) - first * (first + 1)) // 2 + (last - limit) * window


def muon_flops(d: dict[str, Any]) -> float:
    """The operations of `muon`, whose steps come in two groups, before and after RESTART. With n the shorter side of a
    matrix X and m the longer one, each group takes X X^T, a square for each step, two products for each further X X^T,
    one for each further factor of P, and at its end P X. All but the last are symmetric: one half is computed."""
    total = 0
    for _, rows, columns, _ in d["matrices"]:
        n, m = min(rows, columns), max(rows, columns)
        for steps in (RESTART, len(COEFFICIENTS) - RESTART):
            total += n * (n + 1) * (m + (4 * steps - 3) * n) + 2 * n * n * m
    return total


def decoding_flops(d: dict[str, Any]) -> float:
    """The operations of `decode_tokens`: two for each multiply-add of a weight with a token at one of its places, of a
    query with a key, of an attention weight with a value, and of the output head."""
    weights = d["L"] * d["C"] * (4 * d["NH"] * d["HS"] + 2 * d["G"] * d["M"])
    total, sizes = 0, rings(d.get("windows", ()), d["L"], d["S"])
    for index in range(d["index"], d["index"] + d["D"]):
        places = [index] if d["cosines"] else [place for _, place in places_of(index, d["S"])]
        seen = sum(ring_place(place, size)[1] for size in sizes for place in places)
        total += len(places) * weights + 2 * d["NH"] * d["HS"] * seen
    return float(2 * (total + d["D"] * d["C"] * d["V"]))
