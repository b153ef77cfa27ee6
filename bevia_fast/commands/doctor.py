"""`bevia-fast doctor`: a report on the machine and the installation; it compiles and runs the kernels."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import llvmlite
import numba
import numpy as np

from .. import __version__
from ..backends import open_backend
from ..config import DoctorConfig, ModelConfig
from ..errors import StoppedRun, counted
from ..kernels import get_backend
from ..kernels.numba_jit._runtime import cache as kernel_cache
from ..kernels.numba_jit._runtime import threads as kernel_threads
from ..kernels.numba_jit._runtime.target import TARGET
from ..machine import available_bytes, cpu_name, readable
from ..measuring.competitor import LIMITING_VARIABLES, THREAD_VARIABLES
from ..measuring.stopwatch import EVICT_BYTES
from ..training.compiling import warm_up

Rows = list[tuple[str, str]]
VERSION = re.compile("[0-9a-f]{20}")  # the name of a folder of compiled kernels


def machine() -> Rows:
    """Return facts about the processor, the memory and the threads; the threading layer must be running."""
    logical, allowed = os.cpu_count() or 1, len(kernel_threads.allowed_cpus())
    layers = ", ".join(filter(kernel_threads.loads, kernel_threads.LAYERS))
    free = available_bytes()
    chosen = os.environ.get("NUMBA_CPU_NAME")
    return [
        ("CPU", cpu_name()),
        ("instructions", f"{TARGET.name}, {TARGET.lanes(4)} float32 or {TARGET.lanes(8)} float64 at once"
                         + (f" (NUMBA_CPU_NAME is {chosen})" if chosen else "")),
        ("bfloat16", "AVX512_BF16: products of --precision bf16 run at twice the rate" if TARGET.bf16
                     else "no AVX512_BF16: --precision bf16 computes the same, no faster"),
        ("cores", f"{kernel_threads.physical_cores()} physical; "
                  f"{allowed} of {logical} hardware threads are available"),
        ("threads", f"{kernel_threads.describe()}; available layers: {layers}"),
        ("memory", "unknown" if free is None else f"{readable(free)} free"),
    ]  # fmt: skip


def software() -> Rows:
    """Return the versions, and the library behind NumPy's matrix products."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    known = (*THREAD_VARIABLES, *LIMITING_VARIABLES)
    pinned = [f"{name} is {os.environ[name]}" for name in known if name in os.environ]
    return [
        ("versions", f"bevia-fast {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, "
                     f"Numba {numba.__version__}, llvmlite {llvmlite.__version__}"),
        ("NumPy's BLAS", f"{blas.get('name')} {blas.get('version')}; {'; '.join(pinned) or 'no variable limits it'}"),
    ]  # fmt: skip


def measured(stage: Callable[[str], None]) -> Rows:
    """Measure arithmetic peak and memory bandwidth with one thread and with all threads in use."""
    from ..kernels.numba_jit._simd.probe import peak_flops, triad_bandwidth

    counts = sorted({1, numba.get_num_threads()})
    stage("Measuring the arithmetic peak")
    peaks = {
        dtype: {count: f"{peak_flops(count, dtype) / 1e9:.0f} GFLOP/s" for count in counts}
        for dtype in ("float32", "bf16")
    }
    stage("Measuring the memory bandwidth")
    rates = {count: f"{triad_bandwidth(count, EVICT_BYTES) / 1e9:.1f} GB/s" for count in counts}
    return [(name, ", ".join(f"{value} with {counted(count, 'thread')}" for count, value in found.items()))
            for name, found in (*((f"peak, {dtype}", found) for dtype, found in peaks.items()), ("bandwidth", rates))]


@dataclass
class Folder:
    """A folder of compiled kernels."""

    path: Path

    def files(self) -> list[os.stat_result]:
        found = []
        for path in self.path.glob("*/*.nbc"):
            with contextlib.suppress(OSError):
                found.append(path.stat())
        return found

    def describe(self) -> str:
        files = self.files()
        return f"{counted(len(files), 'kernel')}, {readable(sum(file.st_size for file in files))}"


def others() -> list[Folder]:
    """Return the folders of other versions of the kernels, Numba, NumPy or Python, or of another CPU."""
    try:
        found = sorted(kernel_cache.all_versions().iterdir())
    except OSError:
        return []
    return [Folder(path) for path in found if VERSION.fullmatch(path.name) and path != kernel_cache.FOLDER]


def cache(clean: bool) -> Rows:
    """Report on the cache of compiled kernels; with `clean`, remove those of other versions."""
    state = f"not writable: {kernel_cache.problem()}" if kernel_cache.problem() else "writable"
    rows = [("cache", f"{kernel_cache.FOLDER}"), ("", f"{Folder(kernel_cache.FOLDER).describe()}; {state}")]
    old = others()
    if old:
        size = readable(sum(file.st_size for folder in old for file in folder.files()))
        if clean:
            for folder in old:
                shutil.rmtree(folder.path, ignore_errors=True)
            left = len(others())
            rows.append(("", f"removed {counted(len(old) - left, 'folder')} of other versions, {size}"
                             + (f"; cannot remove {left}" if left else "")))  # fmt: skip
        else:
            rows.append(("", f"{len(old)} of other versions, {size}; --clean removes them"))
    return rows


def compile_kernels(config: DoctorConfig, tell: Callable[[str, int, int], None]) -> str:
    """Compile the kernels that training needs; return an error in one sentence, or an empty string."""
    for dtype in ("float32", "float64") if config.float64 else ("float32",):
        # with rotary positions, a model calls the kernels of learned ones too
        model = replace(ModelConfig(), vocab_size=65, dropout=0.1, dtype=dtype, positions="rotary")
        try:
            warm_up(model, get_backend("numba"), tell, "muon")  # with AdamW, as Muon leaves it some weights
        except Exception as error:  # compiler and linker can raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"The kernels do not compile for {dtype} on this machine: {reason[:300].rstrip('.')}."
    return ""


def advice() -> list[str]:
    """Return suggestions that would make this installation faster."""
    found = []
    if kernel_threads.layer() == "workqueue":
        found.append("The threading layer is workqueue, the slowest one; install libgomp1, libomp, or tbb with pip.")
    if not TARGET.fma:
        found.append("The kernels are compiled for a CPU without fused multiply-add, which halves the arithmetic peak.")
    limits = [name for name in LIMITING_VARIABLES if name in os.environ]
    if limits:
        found.append(f"{' and '.join(limits)} can halve the speed of --backend numpy; unset what you do not need.")
    return found


def run(config: DoctorConfig) -> int:
    """Print the report and return the exit code. Raises StoppedRun if the kernels do not work."""
    from .console import CompileBar
    from .progress import progress
    from .tables import FittedConsole

    open_backend("numba", config.threads)
    rows = machine()
    if config.measure:
        with progress() as shown:
            rows += measured(shown.stage)
    rows += software()
    console, bar = FittedConsole(), None

    def tell(operation: str, number: int, total: int) -> None:
        nonlocal bar
        bar = bar or CompileBar(console)
        bar.show(operation, number, total)

    problem = compile_kernels(config, tell)
    if bar is not None:
        bar.stop()
    rows += cache(config.clean)
    if not problem:
        wanted = "float32 and float64" if config.float64 else "float32"
        compiled = f"all kernels for {wanted} were already compiled"
        if bar and bar.count:
            compiled = f"compiled {counted(bar.count, 'kernel')} for {wanted} in {bar.seconds:.1f} s"
        rows.append(("kernels", compiled))
    console.facts(rows)
    console.say(*advice())
    if problem:
        raise StoppedRun(problem)
    return 0
