"""How many threads the kernels use, and which of Numba's threading layers runs them.

OpenMP comes first: its threads synchronize fastest, and several Python threads may use it. Intel's TBB is next. Numba's
own layer, workqueue, is always available, but runs one parallel loop at a time. NUMBA_THREADING_LAYER selects a layer
by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numba
from numba import config as numba_config
from numba.np.ufunc import parallel as numba_parallel

LAYERS = ("omp", "tbb", "workqueue")
if list(numba_config.THREADING_LAYER_PRIORITY) == ["tbb", "omp", "workqueue"]:  # Numba's own order: nobody chose it
    numba_config.THREADING_LAYER_PRIORITY = list(LAYERS)

_count: Callable[[], int] | None = None  # asks the running layer


class LayerError(RuntimeError):
    """The requested threading layer is not available."""


def loads(layer: str) -> bool:
    """Return whether the libraries of a layer load."""
    if layer == "tbb":
        _find_tbb()
        try:
            numba_parallel._check_tbb_version_compatible()
        except ImportError:
            return False
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc." + {"omp": "omppool", "tbb": "tbbpool"}.get(layer, layer))
        return True
    return False


def _find_tbb() -> None:
    """Load the library of the `tbb` package, which lies where the system does not search; Numba then finds it."""
    if sys.platform == "linux":
        path = Path(sysconfig.get_path("data")) / "lib" / "libtbb.so.12"
        if path.exists():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))


def layer() -> str:
    """Return the layer in use, or the one that will be used, without starting it: until then a process may fork."""
    with contextlib.suppress(ValueError):  # not started yet
        return str(numba.threading_layer())
    wanted = str(numba_config.THREADING_LAYER).lower()
    if wanted in LAYERS:
        loads(wanted)  # Numba then finds it
        return wanted
    order = {"safe": ["tbb"], "threadsafe": ["tbb", "omp"], "forksafe": ["tbb", "workqueue"]}.get(
        wanted, numba_config.THREADING_LAYER_PRIORITY
    )
    return next((name for name in order if name in LAYERS and loads(name)), "workqueue")


def start() -> str:
    """Start the threads if they are not running, and return the layer. Raises LayerError."""
    layer()  # loads libraries that Numba would not find
    try:
        numba.get_num_threads()
    except ValueError as error:
        if "PRIORITY" in str(error):
            raise LayerError(
                f"NUMBA_THREADING_LAYER_PRIORITY must hold {', '.join(LAYERS)}, in any order"
            ) from None
        asked = str(numba_config.THREADING_LAYER).lower()
        there = f"there are {', '.join(filter(loads, LAYERS))}"
        advice = "pip install tbb may help" if asked in ("tbb", "safe") else there
        raise LayerError(f"NUMBA_THREADING_LAYER is {asked}, which does not load here; {advice}") from None
    return str(numba.threading_layer())


def physical_cores() -> int:
    """Return the number of cores that this process may run on; a core with two hardware threads counts once.

    Two threads of one core share its arithmetic units, so a second one adds nothing to a product that keeps them busy.
    """
    cores = set()
    for cpu in allowed_cpus():
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as siblings:
                cores.add(siblings.read().strip())
        except OSError:  # not Linux, or hidden: count each one
            cores.add(str(cpu))
    return max(1, len(cores))


def allowed_cpus() -> set[int]:
    """Return the hardware threads that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def set_threads(count: int | None = None) -> int:
    """Use `count` threads from now on, by default one per physical core; return the number in use.

    Raises ValueError if there are fewer, LayerError if no threading layer loads.
    """
    most = numba.config.NUMBA_NUM_THREADS
    if count is None:
        count = min(physical_cores(), most)
    if not 1 <= count <= most:
        raise ValueError(f"{count} threads are requested, but this machine offers 1 to {most}")
    start()
    numba.set_num_threads(count)
    return count


def thread_count() -> int:
    """Return the number of threads like `numba.get_num_threads`, but without its lock: every kernel call asks."""
    global _count
    if _count is None:
        numba.get_num_threads()  # starts them
        _count = getattr(numba_parallel, "_get_num_threads", numba.get_num_threads)
    return int(_count())


def describe() -> str:
    """Return the number of threads and the threading layer as text: "2 threads (omp)"."""
    count = numba.get_num_threads()
    return f"{count} thread{'s' if count != 1 else ''} ({layer()})"
