"""The one place where functions are compiled: flags, cache, threads.

Flags. None: no kernel is compiled with `fastmath`. Assuming that there are no NaNs would hide a diverging run. Leave
to reassociate sums or to contract a*b + c would let LLVM choose differently for the same source, and it does: code
fresh from the compiler and code from the cache then differ in the last bit. Sums and products that should be
vectorised or fused are written so, in `_simd`.

Cache. Numba notices a change of a cached function's own file only, so a stale callee could run. Here the cache folder
is named after a hash of all kernel sources, the versions of numba, llvmlite and numpy, and the CPU compiled for; it
stands in the user's cache folder, so that a read-only install works and an uninstall leaves nothing in the package.

Waiting. At the end of a parallel loop GNU's OpenMP lets threads spin for milliseconds before they sleep. When another
program has one of the cores, the thread that is waited for cannot run while the others spin in its place, and training
becomes a hundred times slower. So they spin briefly here, unless the user says otherwise; see bench/NOTES.md.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy
import platformdirs
from numba import config as numba_config

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when the first parallel kernel loads OpenMP

from ._simd.target import TARGET


def _source_hash() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    versions = (sys.version, numba.__version__, llvmlite.__version__, numpy.__version__)
    digest.update(repr((versions, TARGET, numba_config.CPU_NAME, numba_config.CPU_FEATURES)).encode())
    return digest.hexdigest()[:20]


def cache_folder() -> Path:
    """Where compiled code is kept; BEVIA_FAST_CACHE_DIR overrides the place."""
    base = os.environ.get("BEVIA_FAST_CACHE_DIR") or platformdirs.user_cache_dir("bevia-fast")
    return Path(base) / "kernels" / _source_hash()


CACHE_FOLDER = cache_folder()


def kernel(*, parallel: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function on first use for each combination of dtypes, and keep the machine code on disk."""
    return lambda function: _cached(
        lambda cache: numba.njit(
            parallel=parallel, error_model="numpy", nogil=True, cache=cache
        )(function)
    )  # fmt: skip


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function now, with a fixed address that machine code can call, and keep it on disk."""
    return lambda function: _cached(
        lambda cache: numba.cfunc(signature, error_model="numpy", cache=cache)(function)
    )


def _cached(compile_it: Callable[[bool], Any]) -> Any:
    """Run a Numba decorator with our cache folder; other users of Numba in this process keep theirs. Where the folder
    cannot be written, code is compiled anew in each process."""
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        return compile_it(_cache_is_writable())
    finally:
        numba_config.CACHE_DIR = before


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call; it is compiled into each of them."""
    # no wrappers: it is never called from Python
    return numba.njit(
        error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
    )(function)


def _cache_is_writable() -> bool:
    global _writable
    if _writable is None:
        try:
            CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
            _writable = os.access(CACHE_FOLDER, os.W_OK)
        except OSError:
            _writable = False
    return _writable


_writable: bool | None = None
