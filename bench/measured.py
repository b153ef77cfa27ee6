"""How a benchmark measures a kernel, and what it notes beside the time."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from bevia_fast.agreement.comparison import make_arguments
from bevia_fast.backends import open_backend
from bevia_fast.kernels import BACKENDS
from bevia_fast.measuring.kernel_jobs import SCALES, Job, job, letters_of

each_backend = pytest.mark.parametrize("backend", list(BACKENDS))
each_scale = pytest.mark.parametrize("scale", list(SCALES))


@functools.cache
def peak_gflops() -> float:
    """What the vector units reach with the threads that the kernels use."""
    import numba

    from bevia_fast.kernels.numba_jit._simd.probe import peak_flops

    open_backend("numba")
    return peak_flops(numba.get_num_threads()) / 1e9


def run_kernel(benchmark: Any, operation: str, backend: str, scale: str) -> None:
    """Measure one kernel at one size."""
    chosen: Job = job(operation, letters_of(**SCALES[scale]))
    disabled = benchmark.disabled
    if disabled and scale != "small":
        pytest.skip("only the smallest size when nothing is timed")
    function = getattr(open_backend(backend), operation)
    arguments = make_arguments(chosen.case, "float32")
    function(**arguments)  # compiled, or read from the cache
    benchmark.group = f"{operation} {chosen.size}"
    cost = chosen.cost("float32")
    benchmark.extra_info.update(flops=cost.flops, bytes=cost.bytes, intensity=cost.intensity)
    benchmark(lambda: function(**arguments))
    add_rates(benchmark, cost.flops, cost.bytes)


def add_rates(benchmark: Any, flops: float, nbytes: float = 0.0) -> None:
    """GFLOP/s and fraction of the peak, where something was timed."""
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["gflops"] = flops / seconds / 1e9
    if nbytes:
        benchmark.extra_info["gbytes_per_s"] = nbytes / seconds / 1e9
    benchmark.extra_info["peak_gflops"] = peak_gflops()
    benchmark.extra_info["fraction_of_peak"] = flops / seconds / 1e9 / peak_gflops()
