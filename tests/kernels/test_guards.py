"""Views check no index: here all arguments and working memory stand between guard zones, which must stay unchanged.

Working memory starts as NaN. The zones are NaN in one call, so that a kernel that reads them and uses what it finds
gives a different result; in another call they are a negative number, because adding to a NaN leaves the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from bevia_fast.agreement.cases import cases
from bevia_fast.agreement.comparison import Case, make_arguments, run
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.bfloat16 import has_precision
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.kernels.memory import CACHE_LINE
from bevia_fast.kernels.numba_jit._runtime import scratch as memory

Array = NDArray[Any]
GUARD = 16 * CACHE_LINE  # bytes on each side: more than any tile is wide
NAN, NEGATIVE = 0xFF, 0xC2  # a float of such bytes: NaN, and -97.1 (float32) or -4e13 (float64)
MORE = [  # larger calls, for which the work is cut in other ways
    *(
        Case(f"attention_{which}", {"B": B, "T": T, "NH": NH, "HS": HS, "C": NH * HS},
             options={"dropout_rate": rate, "dropout_key": 7})
        for which in ("forward", "backward")
        for B, T, NH, HS in [(1, 95, 3, 64), (1, 193, 1, 48), (1, 385, 2, 20), (1, 400, 3, 64), (3, 33, 1, 130)]
        for rate in (0.0, 0.3)
    ),
    *(
        Case(f"linear_{which}", {"N": N, "C": C, "OC": OC}, given, transposed=transposed)
        for which, given in (("forward", ("bias", "residual")), ("backward", ("dbias", "dresidual")))
        for N, C, OC in [(520, 33, 257), (100, 700, 800), (300, 96, 384), (97, 1031, 517)]
        for transposed in (False, True)
    ),
    # tables larger than what counts as near
    *(Case(f"embedding_{which}", {"B": 3, "T": 5, "V": 9001, "C": 33}) for which in ("forward", "backward")),
]  # fmt: skip
EACH_COUNT = pytest.mark.parametrize("threads", range(1, min(2, numba.config.NUMBA_NUM_THREADS) + 1))


class Guards:
    """Arrays between guard zones, whose bytes are all `fill`."""

    def __init__(self, fill: int) -> None:
        self.fill = fill
        self.made: dict[str, tuple[NDArray[np.uint8], int]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A C-contiguous array at the start of a cache line, filled with NaN."""
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.full(size + 2 * GUARD + CACHE_LINE, self.fill, np.uint8)
        start = -raw.ctypes.data % CACHE_LINE
        zone = raw[start : start + size + 2 * GUARD]
        zone[GUARD : GUARD + size] = NAN
        self.made[name] = zone, size
        return zone[GUARD : GUARD + size].view(dtype).reshape(shape)

    def copy(self, name: str, array: Array) -> Array:
        if not array.flags.c_contiguous:
            return self.copy(name, array.T).T
        guarded = self.empty(name, array.shape, array.dtype)
        guarded[...] = array
        return guarded

    def scratch(self, purpose: str, size: int, dtype: np.dtype[Any]) -> Array:
        """Exactly what was asked for, where `scratch` may give more."""
        return self.empty(f"working memory for {purpose!r}", (size,), np.dtype(dtype))

    def written(self) -> Iterator[str]:
        for name, (zone, size) in self.made.items():
            for side, guard in (("before", zone[:GUARD][::-1]), ("behind", zone[GUARD + size :])):
                if (guard != self.fill).any():
                    yield f"{name}: {int((guard != self.fill).argmax())} bytes {side} it"


def guard_memory(monkeypatch: pytest.MonkeyPatch, guards: Guards) -> None:
    """Have all kernels take their working memory from `guards`."""
    found = [
        module
        for name, module in sys.modules.items()
        if name.startswith("bevia_fast.kernels.numba_jit.") and vars(module).get("scratch") is memory.scratch
    ]
    assert len(found) >= 5
    for module in found:
        monkeypatch.setattr(module, "scratch", guards.scratch)


def guarded(case: Case, dtype: str, guards: Guards) -> dict[str, Any]:
    """The arguments of a call, its arrays between guards; arrays that are the same remain the same."""
    arguments, copies = make_arguments(case, dtype), dict[int, Array]()
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            if id(value) not in copies:
                copies[id(value)] = guards.copy(name, value)
            arguments[name] = copies[id(value)]
    return arguments


def same_bits(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@EACH_COUNT
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_is_written_outside(
    monkeypatch: pytest.MonkeyPatch, operation: str, dtype: str, threads: int
) -> None:
    nothing_is_written_outside(monkeypatch, cases(operation) + more(operation), dtype, threads)


@EACH_COUNT
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if has_precision(name)])
def test_nothing_is_written_outside_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, operation: str, threads: int
) -> None:
    calls = [
        replace(case, options={**case.options, "precision": "bf16"}) for case in cases(operation) + more(operation)
    ]
    nothing_is_written_outside(monkeypatch, calls, "float32", threads)


def more(operation: str) -> list[Case]:
    return [case for case in MORE if case.operation == operation]


def nothing_is_written_outside(monkeypatch: pytest.MonkeyPatch, calls: list[Case], dtype: str, threads: int) -> None:
    backend, before = get_backend("numba"), numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        for case in calls:
            results = []
            for fill in (NEGATIVE, NAN):
                guards = Guards(fill)
                with monkeypatch.context() as patch:
                    guard_memory(patch, guards)
                    results.append(run(backend, case, guarded(case, dtype, guards)))
                assert list(guards.written()) == [], f"written outside by {case}"
            for name, expected in run(backend, case, make_arguments(case, dtype)).items():
                for result in results:
                    assert same_bits(result[name], expected), f"{case}: {name} depends on memory outside its arrays"
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("at", [-1, 7], ids=["before", "behind"])
def test_a_number_outside_would_be_seen(at: int) -> None:
    guards = Guards(NEGATIVE)
    array = guards.empty("out", (7,), np.dtype("float32"))
    assert list(guards.written()) == []
    np.lib.stride_tricks.as_strided(guards.made["out"][0].view("float32"), (7 + GUARD // 2,))[GUARD // 4 + at] = 1.0
    (place,) = guards.written()
    assert place.startswith("out: ")
    assert np.isnan(array).all()
