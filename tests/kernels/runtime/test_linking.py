"""Functions that are compiled into others: they become machine code as a part of these only, and work as ever."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numba.core.codegen import JITCodeLibrary

from bevia_fast.kernels.numba_jit._runtime import linking
from bevia_fast.kernels.numba_jit._runtime.jit import device


@device
def _root(x):  # type: ignore[no-untyped-def]
    if x < 0:
        raise ValueError("of a negative number")
    return min(x**0.5, 100.0)


def _roots(numbers):  # type: ignore[no-untyped-def]
    roots = np.zeros(numbers.size)
    for i in numba.prange(numbers.size):
        roots[i] = _root(abs(numbers[i]))
    for i in range(numbers.size):
        roots[i] += _root(numbers[i])
    return roots.sum()


@pytest.mark.parametrize("parallel", [False, True])
def test_only_the_whole_becomes_machine_code(monkeypatch: pytest.MonkeyPatch, parallel: bool) -> None:
    translated: list[str] = []
    finalize = JITCodeLibrary._finalize_final_module
    monkeypatch.setattr(JITCodeLibrary, "_finalize_final_module",
                        lambda self: [translated.append(self.name), finalize(self)])  # fmt: skip
    roots = numba.njit(parallel=parallel, error_model="numpy")(_roots)
    with linking.only("_roots"):
        assert roots(np.array([4.0, 9.0])) == 10
    assert translated == ["_roots"]
    with pytest.raises(ValueError, match="of a negative number"):
        roots(np.array([4.0, -9.0]))


def test_what_is_compiled_elsewhere_is_compiled_as_ever() -> None:
    """Also if it calls what is a part of kernels."""
    library = numba.core.registry.cpu_target.target_context.codegen()._library_class
    roots = numba.njit(_roots)
    assert roots(np.array([16.0, 25.0])) == 18
    assert numba.njit(lambda x: min(x, 3.0) + 1)(2.0) == 3
    assert numba.core.registry.cpu_target.target_context.codegen()._library_class is library
