"""How many threads the kernels use, and through which threading layer."""

from __future__ import annotations

import os

import numba


def physical_cores() -> int:
    """Cores that this process may run on, a core with two hardware threads counted once.

    Two threads of one core share its arithmetic units: they add nothing to a product that keeps these busy.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as siblings:
                cores.add(siblings.read().strip())
        except OSError:  # not Linux, or hidden: then each counts
            cores.add(str(cpu))
    return max(1, len(cores))


def set_threads(count: int | None = None) -> int:
    """Use `count` threads from here on, or as many as there are physical cores; returns the number in use.

    Raises ValueError if there are not so many.
    """
    most = numba.config.NUMBA_NUM_THREADS
    if count is None:
        count = min(physical_cores(), most)
    if not 1 <= count <= most:
        raise ValueError(f"{count} threads are asked for; this machine offers from 1 to {most}")
    numba.set_num_threads(count)
    return count


def describe() -> str:
    """The threading layer and the number of threads, for people: "2 threads (omp)"."""
    try:
        layer = numba.threading_layer()
    except ValueError:  # no parallel kernel has run yet
        layer = "layer not started"
    count = numba.get_num_threads()
    return f"{count} thread{'s' if count != 1 else ''} ({layer})"
