"""The one place where functions are compiled: flags, cache, threads.

Flags. None: no kernel is compiled with `fastmath`. Assuming that there are no NaNs would hide a diverging run. Leave
to reassociate sums or to contract a*b + c would let LLVM choose differently for the same source, and it does: code
fresh from the compiler and code from the cache then differ in the last bit. Sums and products that should be
vectorised or fused are written so, in `_simd`.

Cache. Machine code is kept on disk; see `cache`. Only kernels become machine code, not what they are made of; see
`linking`.

Threads. See `threads` for the layer that runs them. One of the layers ends the process when two Python threads start
parallel kernels at once; with that one, and with no other, kernels wait for each other.

Waiting. At the end of a parallel loop GNU's OpenMP lets threads spin for milliseconds before they sleep. When another
program has one of the cores, the thread that is waited for cannot run while the others spin in its place, and training
becomes a hundred times slower. So they spin briefly here, unless the user says otherwise; see bench/NOTES.md.
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
    """Compile a function on first use for each combination of dtypes, and keep the machine code on disk."""

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
    """Compile a function now, with a fixed address that machine code can call, and keep it on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = CFunc(function, sigutils.normalize_signature(signature), {}, {"error_model": "numpy"})
        own_cache = compiled._cache = cache.Cache(function)
        with own_cache.one_process_at_a_time(), linking.only(function.__qualname__):
            compiled.compile()
        return compiled

    return decorate


def device(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function that kernels call; it is compiled into each of them."""
    # no wrappers: it is never called from Python
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
    """As `device`, for a function so short that a call would take as long: views, as arguments, are many numbers."""
    return device(function, forceinline=True)
