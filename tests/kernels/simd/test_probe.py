"""The yardstick itself: that the probe does all the arithmetic that it counts."""

from __future__ import annotations

import re

import numba
import numpy as np
import pytest

from bevia_fast.kernels.numba_jit._runtime.target import TARGET
from bevia_fast.kernels.numba_jit._simd.probe import CHAINS, _triad, multiply_add_chains


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_triad_computes_what_it_is_timed_for(dtype: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 1003)).astype(dtype)
    out, factor = np.full(1003, np.nan, dtype), np.dtype(dtype).type(0.75)
    _triad(out, left, right, factor, 2, threads)
    np.testing.assert_allclose(out, left + factor * right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("real", "weight"),
    [(numba.float32, numba.float32), (numba.float64, numba.float64), (numba.float32, numba.uint32)],
)
def test_no_chain_of_the_probe_is_computed_by_the_compiler(
    real: numba.types.Float, weight: numba.types.Type
) -> None:
    @numba.njit  # type: ignore[untyped-decorator]
    def chains(count, sample, weight):  # type: ignore[no-untyped-def]
        return multiply_add_chains(count, sample, weight)

    chains.compile((numba.int64, real, weight))
    (code,) = chains.inspect_llvm().values()
    body = code.split("define")[1]  # of the function itself, not of its wrappers
    pairs = weight == numba.uint32 and TARGET.bf16
    wanted = "call .*@llvm.x86.avx512bf16" if pairs else r"call .*@llvm\.fma\.v" if TARGET.fma else r"= fmul .*<"
    found = len(re.findall(wanted, body))
    assert found > 0
    assert found % CHAINS == 0, f"{found} multiply-adds, of {CHAINS} chains"
