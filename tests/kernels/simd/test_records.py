"""Records: what Python put into named tuples, as machine code finds it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from helpers import Array, in_a_process
from numba.core import types

from bevia_fast.kernels.numba_jit._runtime.jit import c_function, kernel
from bevia_fast.kernels.numba_jit._simd.records import plain, record, record_address, run, type_of
from bevia_fast.kernels.numba_jit._simd.views import row_of


class Inner(NamedTuple):
    table: Any
    factor: float
    key: np.uint64


class Outer(NamedTuple):
    count: int
    inner: Inner
    out: Any
    offset: float
    last: Inner


class Pair(NamedTuple):
    number: int
    row: Any


def values_of(dtype: str) -> Outer:
    table = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    last = Inner(table[0] + 100, -0.5, np.uint64((1 << 64) - 3))
    return Outer(-7, Inner(table, 0.25, np.uint64(5)), np.zeros(9, dtype), 1e-300, last)


def _read_all(outer):  # type: ignore[no-untyped-def]
    out, table, last = outer.out, outer.inner.table, outer.last
    out[0] = outer.count
    out[1] = table.rows
    out[2] = table.columns
    out[3] = table[5][3]
    out[4] = outer.inner.factor
    out[5] = outer.offset * 1e300
    out[6] = last.table[2][1]
    out[7] = last.factor
    if last.key == np.uint64(18446744073709551613) and outer.inner.key == np.uint64(5):
        out[8] = 1.0


@kernel()
def _in_a_loop(code: int, values: Any, threads: int) -> None:
    address = record_address(values)
    for _ in numba.prange(threads):
        run(code, address)


def test_every_field_comes_across(dtype: str) -> None:
    values = values_of(dtype)
    code = c_function(types.void(type_of(values)))(_read_all).address
    for threads in (1, 2):
        values.out[:] = 0
        _in_a_loop(code, plain(values), threads)
        assert values.out.tolist() == [-7, 6, 4, 23, 0.25, 1, 109, -0.5, 1]


@kernel(parallel=False)
def _made_in_a_kernel(array: Array) -> float:
    total = 0.0
    for n in range(3):
        pair = record(Pair(n, row_of(array, n, 2)))
        total += pair.number * pair.row[1]
    return total


def test_a_record_made_in_a_kernel(dtype: str) -> None:
    assert _made_in_a_kernel(np.array([1, 10, 100, 1000], dtype)) == 1 * 100 + 2 * 1000


NAMES = """
import json, sys
from test_records import type_of, values_of

print(json.dumps([type_of(values_of(dtype)).mangling_args for dtype in json.loads(sys.argv[1])]))
"""


def test_compiled_functions_have_the_same_names_in_every_process() -> None:
    """A process may load one function that another process compiled, and a second that a third one did."""
    one, other = in_a_process(NAMES, ["float32", "float64"])
    assert one != other
    assert in_a_process(NAMES, ["float64", "float32"]) == [other, one]
