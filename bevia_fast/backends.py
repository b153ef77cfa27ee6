"""Opening and describing one of the two backends."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any, cast

from .config import BackendName, PrecisionName
from .errors import ConfigError, reason, shown
from .kernels import BACKENDS, get_backend
from .kernels.contract import OPERATIONS, UNCHECKED, Backend
from .kernels.memory import keep_freed_memory
from .naming import option


def open_backend(name: BackendName, threads: int = 0) -> Backend:
    """Return the kernels called `name`, on that many threads; 0 means one per physical core.

    `threads` applies to numba only: NumPy's matrix products use the threads of its own library. The number belongs to
    the returned backend, whichever Python thread calls it. With numpy, freed memory stays with the process from then
    on, see `kernels.memory.keep_freed_memory`. Raises ConfigError if the backend does not load or the threads are not
    available.
    """
    if name not in BACKENDS:
        raise ConfigError(f"{option('backend')} is {shown(repr(name), 60)}; it must be one of {', '.join(BACKENDS)}.")
    count: Any = threads  # a Python caller may pass anything
    if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 0:
        raise ConfigError(f"{option('threads')} is {shown(repr(threads), 60)}; it must be an integer, at least 0.")
    if name == "numba":
        require_numba(f"take {option('backend', 'numpy')}")
    try:
        backend = get_backend(name)
    except ImportError as error:
        raise ConfigError(f"The {name} backend does not load: {error}.") from error
    if name == "numpy":
        keep_freed_memory()
        return backend
    from .kernels.numba_jit._runtime import threads as kernel_threads

    try:
        count = kernel_threads.set_threads(int(threads) or None)
    except kernel_threads.LayerError as error:
        raise ConfigError(f"{error}.") from None
    except ValueError as error:
        raise ConfigError(f"{option('threads', threads)} is not available: {str(error).rstrip('.')}.") from None
    return cast(Backend, OnThreads(backend, count))


class OnThreads:
    """The numba backend on a fixed number of threads.

    Numba keeps the number for each Python thread, and starts each at the most that the machine offers. So every
    operation sets it first, in the Python thread that calls it.
    """

    def __init__(self, kernels: Backend, count: int) -> None:
        from .kernels.numba_jit._runtime import threads as kernel_threads

        self.name, self.count = kernels.name, count
        self._now, self._set = kernel_threads.thread_count, kernel_threads.set_threads
        for operation in OPERATIONS:
            setattr(self, operation, self._counted(getattr(kernels, operation)))
        self.launches: Callable[[], Any] = getattr(kernels, "launches")  # noqa: B009  # not part of Backend
        # a tape asks for the conditions before it replays compiled code, which then runs on these threads
        self.conditions = self._counted(getattr(kernels, "conditions"))  # noqa: B009

    def __repr__(self) -> str:
        return f"<backend {self.name} on {self.count} thread{'s' if self.count != 1 else ''}>"

    def use(self) -> None:
        """Let the kernels that the current Python thread calls next run on this backend's threads."""
        if self._now() != self.count:
            self._set(self.count)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*arguments: Any, **options: Any) -> Any:
            self.use()
            return function(*arguments, **options)

        if hasattr(function, UNCHECKED):
            setattr(counted, UNCHECKED, self._counted(getattr(function, UNCHECKED)))
        return counted


def require_numba(alternative: str = "") -> None:
    """Import Numba and the kernels. Raises ConfigError, naming the variables, if NUMBA_* variables prevent that.

    `alternative` says in a few words what would work without Numba.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith("NUMBA_")}
    if not given:
        return
    set_to = ", ".join(f"{name} is {shown(value, 60) or 'empty'}" for name, value in given.items())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # Numba warns, with a traceback, about a value that it cannot read
        try:
            import numba

            if numba.config.DISABLE_JIT:
                raise ConfigError(
                    f"NUMBA_DISABLE_JIT is {shown(given.get('NUMBA_DISABLE_JIT', 'set'), 60)}, so Numba compiles "
                    f"nothing; unset it{f', or {alternative}' if alternative else ''}."
                )
            get_backend("numba")
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"Numba does not start: {reason(error)} ({set_to}); unset what is wrong.") from error
    for warning in caught:
        wrong = [name for name in given if f"'{name}'" in str(warning.message)]
        if wrong:
            value = shown(given[wrong[0]], 60)
            raise ConfigError(f"{wrong[0]} is {value or 'empty'}, which Numba cannot read; correct it or unset it.")


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


def describe_backend(backend: Backend, precision: PrecisionName = "float32") -> str:
    """Return the backend and its threads in a few words, and how it multiplies in bfloat16 if `precision` says so."""
    if backend.name == "numba":
        from .kernels.numba_jit._runtime import threads as kernel_threads

        if isinstance(backend, OnThreads):
            backend.use()
        words = f"numba, {kernel_threads.describe()}"
        if precision == "float32":
            return words
        from .kernels.numba_jit._runtime.target import TARGET

        return f"{words}; bf16 {'by AVX512_BF16' if TARGET.bf16 else 'in float32, without AVX512_BF16'}"
    import numpy

    return f"numpy {numpy.__version__}"


def default_threads() -> int:
    """Return one thread per physical core, or as many as NUMBA_NUM_THREADS allows."""
    import numba

    from .kernels.numba_jit._runtime.threads import physical_cores

    return min(physical_cores(), int(numba.config.NUMBA_NUM_THREADS))
