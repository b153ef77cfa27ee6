"""Opening and describing one of the two backends."""

from __future__ import annotations

import sys
from pathlib import Path

from .config import BackendName
from .errors import ConfigError
from .kernels import get_backend
from .kernels.contract import Backend
from .kernels.memory import keep_freed_memory


def open_backend(name: BackendName, threads: int = 0) -> Backend:
    """Return the kernels called `name`, on that many threads; 0 means one per physical core.

    `threads` applies to numba only: NumPy's matrix products use the threads of its own library. With numpy, freed
    memory stays with the process from then on, see `kernels.memory.keep_freed_memory`. Raises ConfigError if the
    backend does not load or the threads are not available.
    """
    try:
        backend = get_backend(name)
    except ImportError as error:
        raise ConfigError(f"The {name} backend does not load: {error}.") from error
    if name == "numpy":
        keep_freed_memory()
    else:
        from .kernels.numba_jit._runtime import threads as kernel_threads

        try:
            kernel_threads.set_threads(threads or None)
        except kernel_threads.LayerError as error:
            raise ConfigError(f"{error}.") from None
        except ValueError as error:
            raise ConfigError(f"--threads {threads} is not available: {str(error).rstrip('.')}.") from None
    return backend


def cache_folder() -> Path:
    """Return the folder in which the numba backend caches compiled code."""
    from .kernels.numba_jit._runtime import cache as kernel_cache

    return kernel_cache.FOLDER


def damaged_code() -> str:
    """Return which compiled code on disk was damaged and is compiled again, in a few words; empty if none was."""
    kernel_cache = sys.modules.get(f"{__package__}.kernels.numba_jit._runtime.cache")
    count = len(kernel_cache.damaged) if kernel_cache is not None else 0  # None: only NumPy's kernels are in use
    kernels = "1 kernel was" if count == 1 else f"{count} kernels were"
    return f"compiled code on disk was damaged; {kernels} compiled again" if count else ""


def describe_backend(backend: Backend) -> str:
    """Return the backend and its threads in a few words."""
    if backend.name == "numba":
        from .kernels.numba_jit._runtime import threads as kernel_threads

        return f"numba, {kernel_threads.describe()}"
    import numpy

    return f"numpy {numpy.__version__}"


def default_threads() -> int:
    """Return one thread per physical core, or as many as NUMBA_NUM_THREADS allows."""
    import numba

    from .kernels.numba_jit._runtime.threads import physical_cores

    return min(physical_cores(), int(numba.config.NUMBA_NUM_THREADS))
