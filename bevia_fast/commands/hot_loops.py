"""`bevia-fast profile KERNEL --asm`: the machine code of the hot loops of the compiled kernels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np

from ..agreement.comparison import make_arguments
from ..backends import open_backend
from ..errors import UserError, counted
from ..kernels.numba_jit._runtime.launches import Kernel
from ..kernels.numba_jit._runtime.target import TARGET
from ..kernels.numba_jit._simd import tiles
from ..measuring.assembly import Loop, loops
from ..measuring.kernel_jobs import Job, job, letters_for, profile_jobs
from ..measuring.options import ProfileKernelConfig
from .progress import progress
from .tables import FittedConsole, make_table

SHORT_CTX = 64  # compiled code does not depend on the size
SHOWN = 80  # lines of a loop
LEGEND = (
    "Arithmetic: vector instructions other than multiply-adds. Loads and stores: of arrays, including memory operands. "
    "Spills: of the stack, which holds values and addresses that do not fit into registers."
)


def show_asm(config: ProfileKernelConfig, console: FittedConsole) -> int:
    """Compile the requested kernels, find their hot loops and print them; return the exit code."""
    found: dict[str, list[tuple[str, Loop]]] = {}
    jobs = profile_jobs(config)
    with progress() as shown:
        for one in jobs:
            name = one.own.label if one.own else one.operation
            shown.stage(f"Compiling {name}")
            pairs = own_loops(one, config) if one.own else hot_loops(one.operation, config)
            found[name] = sorted(pairs, key=lambda pair: _work(pair[1]), reverse=True)
    rows = [
        [kernel, function, loop.instruction_set, str(loop.vector_bits or "-"), str(loop.fmas), str(loop.arithmetic),
         str(loop.loads), str(loop.stores), str(loop.spills), str(loop.instructions)]
        for kernel, named in found.items() for function, loop in named
    ]  # fmt: skip
    console.show(make_table(
        f"The hot loops of the numba backend, {config.dtype}; compiled for {TARGET.name}",
        ["kernel", "function", "set"],
        ["bits", "FMAs", "arithmetic", "loads", "stores", "spills", "all"], rows,
        ["all", "set", "arithmetic", "stores", "loads", "spills", "bits"], ["function"],
    ))  # fmt: skip
    console.say(LEGEND)
    for kernel, named in found.items():
        if not named:
            why = "its arithmetic is compiled separately and called by address"
            if any(one.own and one.own.label == kernel for one in jobs):
                why = "few of its instructions compute"
            console.say(f"{kernel} has no such loop: {why}.")
    listed, left_out = listings(found, config.all_loops)
    for title, loop in listed:
        console.say("", title)
        for line in loop.lines[:SHOWN]:
            console.print(f"    {line}", soft_wrap=True)
        if len(loop.lines) > SHOWN:
            console.say(f"    ... and {counted(len(loop.lines) - SHOWN, 'more line')}")
    if left_out:
        console.say("", f"{counted(left_out, 'other loop')} not shown; --all-loops shows them.")
    return 0


def listings(
    found: Mapping[str, Sequence[tuple[str, Loop]]], all_loops: bool
) -> tuple[list[tuple[str, Loop]], int]:
    """Return (title, loop) of the loops to print, and how many others there are. Each is printed once, even if several
    kernels share it; `found` has those of a kernel in order, the one that computes the most first."""
    unique: dict[tuple[str, ...], tuple[str, Loop]] = {}
    first: set[tuple[str, ...]] = set()
    for kernel, named in found.items():
        for number, (function, loop) in enumerate(named):
            unique.setdefault(loop.lines, (f"{kernel}: {function}", loop))
            first |= {loop.lines} if number == 0 else set()
    listed = [pair for lines, pair in unique.items() if all_loops or lines in first]
    return listed, len(unique) - len(listed)


def hot_loops(operation: str, config: ProfileKernelConfig) -> Iterator[tuple[str, Loop]]:
    """Yield (function, its hottest loop) for each compiled function of an operation.

    The matrix product has one loop per tile.
    """
    backend = open_backend("numba", config.threads)
    function = getattr(backend, operation)
    function(**_short_arguments(operation, config))
    used = _names(inspect.unwrap(function))
    for name, value in used.items():
        if isinstance(value, Kernel) and (best := _hottest(value)):
            yield name, best
    if "product_address" in used:
        found = [loop for loop in loops(product_asm(config.dtype)) if loop.fmas]
        most = max((loop.fmas for loop in found), default=0)
        for number, loop in enumerate(loop for loop in found if 2 * loop.fmas >= most):
            yield f"product, tile {number + 1}", loop


def own_loops(one: Job, config: ProfileKernelConfig) -> Iterator[tuple[str, Loop]]:
    """Yield (function, its hottest loop) of a kernel of the user's. Raises UserError if Numba does not compile it."""
    assert one.own is not None
    open_backend("numba", config.threads)
    function = one.own.load()
    if not hasattr(function, "py_func"):
        raise UserError(f"{one.own.label} is not compiled by Numba, so --asm cannot show its machine code.")
    try:
        function(**_short_arguments(one.operation, config))
    except Exception as error:  # it is the user's
        raise UserError(f"{one.own.label}: {type(error).__name__}: {' '.join(str(error).split())[:300]}.") from error
    if best := _hottest(function):
        yield one.own.function, best


def _short_arguments(operation: str, config: ProfileKernelConfig) -> dict[str, Any]:
    letters = letters_for(config) | {"T": SHORT_CTX, "B": 1, "N": SHORT_CTX, "S": SHORT_CTX, "R": SHORT_CTX, "P": 4096}
    return make_arguments(job(operation, letters).case, config.dtype)


def _hottest(dispatcher: Any) -> Loop | None:
    """Return the loop of a compiled function that computes the most; None if it only calls functions or copies."""
    found = [loop for text in _compiled_anew(dispatcher) for loop in loops(text)]
    best = max(found, key=_work, default=None)
    return best if best and 8 * (best.fmas + best.arithmetic) >= best.instructions else None


def _work(loop: Loop) -> tuple[int, int, int]:
    """Return what decides which loop matters: first of all its multiply-adds."""
    return loop.fmas, loop.arithmetic, loop.vector_bits


def product_asm(dtype: str) -> str:
    """Return the machine code of the matrix product, which is compiled separately from its callers."""
    signature = tiles.product_signature(np.dtype(dtype))
    text: str = numba.cfunc(signature, error_model="numpy")(tiles._product)._library.get_asm_str()
    return text


def _compiled_anew(dispatcher: Any) -> list[str]:
    """Return the machine code of a function, compiled again since Numba does not show code from its cache."""
    options = {name: value for name, value in dispatcher.targetoptions.items() if name != "nopython"}  # implied by njit
    fresh = numba.njit(**options)(dispatcher.py_func)
    for signature in dispatcher.signatures:
        fresh.compile(signature)
    return list(fresh.inspect_asm().values())


def _names(function: FunctionType) -> dict[str, Any]:
    """Return the objects that a function of a kernel module refers to by name, directly or through others."""
    found: dict[str, Any] = {}

    def visit(code: CodeType, scope: dict[str, Any]) -> None:
        for name in code.co_names:
            value = scope.get(name)
            if value is None or name in found:
                continue
            found[name] = value
            if isinstance(value, FunctionType) and value.__module__ == function.__module__:
                visit(value.__code__, scope)

    visit(function.__code__, function.__globals__)
    return found
