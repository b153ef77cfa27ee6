"""The decorators that compile functions: flags, cache, threads.

Flags. There are none: no kernel is compiled with `fastmath`. To assume that there are no NaNs would hide a diverging
run. Permission to reassociate sums or to contract a*b + c would let LLVM choose differently for the same source, and it
does: freshly compiled code and cached code would differ in the last bit. Sums and products that should be vectorized or
fused are written that way, in `_simd`.

Cache. Machine code is cached on disk; see `cache`. Only kernels are translated to machine code, not the functions that
are compiled into them; see `linking`.

Threads. `threads` chooses the layer that runs them. One of the layers aborts the process when two Python threads start
parallel kernels at the same time; with that layer alone, kernels wait for each other.

Spinning. At the end of a parallel loop, GNU's OpenMP lets threads spin for milliseconds before they sleep. If another
program occupies one of the cores, the late thread cannot run while the others spin in its place, and training becomes
a hundred times slower. So threads spin only briefly, unless the user sets GOMP_SPINCOUNT; see bench/NOTES.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when the first parallel kernel loads OpenMP

import numba
from numba.core import sigutils
from numba.core.ccallback import CFunc

from . import cache, linking, threads
from .launches import Kernel


def kernel(*, parallel: bool = True) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function on first use for each combination of dtypes, and cache the machine code on disk."""

    def decorate(function: Callable[..., Any]) -> Kernel:
        dispatcher = numba.njit(
            parallel=parallel, error_model="numpy", nogil=True, no_cfunc_wrapper=True
        )(function)
        own_cache = dispatcher._cache = cache.Cache(function)
        compile_it = dispatcher.compile

        def compile_alone(signature: Any) -> Any:
            with own_cache.one_process_at_a_time(), linking.only(function.__qualname__):
                return compile_it(signature)

        dispatcher.compile = compile_alone
        return Kernel(dispatcher, alone=parallel and threads.layer() == "workqueue")

    return decorate


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function now, to a fixed address that machine code can call, and cache it on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = CFunc(function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"})
        own_cache = compiled._cache = cache.Cache(function)
        with own_cache.one_process_at_a_time(), linking.only(function.__qualname__):
            compiled.compile()
        return compiled

    return decorate


def device(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function that kernels call; it becomes part of each of them."""
    # no wrappers: Python never calls it
    dispatcher = numba.njit(
        error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options
    )(function)
    compile_it = dispatcher.compile

    def compile_part(signature: Any) -> Any:
        with linking.only(""):
            return compile_it(signature)

    dispatcher.compile = compile_part
    return dispatcher


def inlined(function: Callable[..., Any]) -> Any:
    """Like `device`, for a function so short that a call would take as long: a view as an argument is many numbers."""
    return device(function, forceinline=True)
