"""`bevia-fast profile KERNEL --asm`: the machine code of the hot loops of the compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np

from ..agreement.comparison import make_arguments
from ..backends import open_backend
from ..kernels.numba_jit._runtime.launches import Kernel
from ..kernels.numba_jit._runtime.target import TARGET
from ..kernels.numba_jit._simd import tiles
from ..measuring.assembly import Loop, loops
from ..measuring.kernel_jobs import job, letters_for, profile_jobs
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
    listings: list[tuple[str, Loop]] = []
    rows, without = [], []
    with progress() as shown:
        for one in profile_jobs(config):
            shown.stage(f"Compiling {one.operation}")
            found = list(hot_loops(one.operation, config))
            if not found:
                without.append(one.operation)
            for name, loop in found:
                rows.append([one.operation, name, loop.instruction_set, str(loop.vector_bits or "-"), str(loop.fmas),
                             str(loop.arithmetic), str(loop.loads), str(loop.stores), str(loop.spills),
                             str(loop.instructions)])  # fmt: skip
                listings.append((f"{one.operation}: {name}", loop))
    console.show(make_table(
        f"The hot loops of the numba backend, {config.dtype}; compiled for {TARGET.name}",
        ["kernel", "function", "set"],
        ["bits", "FMAs", "arithmetic", "loads", "stores", "spills", "all"], rows,
        ["all", "set", "arithmetic", "stores", "loads", "spills", "bits"],
    ))  # fmt: skip
    console.say(LEGEND)
    for operation in without:
        console.say(f"{operation} has no such loop: its arithmetic is compiled separately and called by address.")
    seen = set()
    for title, loop in listings:
        if loop.lines in seen:
            continue
        seen.add(loop.lines)
        console.print(f"\n{title}", soft_wrap=True)
        for line in loop.lines[:SHOWN]:
            console.print(f"    {line}", soft_wrap=True)
        if len(loop.lines) > SHOWN:
            console.print(f"    ... and {len(loop.lines) - SHOWN} more lines", soft_wrap=True)
    return 0


def hot_loops(operation: str, config: ProfileKernelConfig) -> Iterator[tuple[str, Loop]]:
    """Yield (function, its hottest loop) for each compiled function of an operation.

    The matrix product has one loop per tile.
    """
    backend = open_backend("numba", config.threads)
    letters = letters_for(config) | {"T": SHORT_CTX, "B": 1, "N": SHORT_CTX, "S": SHORT_CTX, "R": SHORT_CTX, "P": 4096}
    one = job(operation, letters)
    function = getattr(backend, operation)
    function(**make_arguments(one.case, config.dtype))
    used = _names(function.__wrapped__)
    for name, value in used.items():
        if isinstance(value, Kernel):
            texts = _compiled_anew(value)
            found = [loop for text in texts for loop in loops(text)]
            if found:
                best = max(found, key=_work)
                if 8 * (best.fmas + best.arithmetic) >= best.instructions:  # other loops call functions or copy
                    yield name, best
    if "product_address" in used:
        found = [loop for loop in loops(product_asm(config.dtype)) if loop.fmas]
        most = max((loop.fmas for loop in found), default=0)
        for number, loop in enumerate(loop for loop in found if 2 * loop.fmas >= most):
            yield f"product, tile {number + 1}", loop


def _work(loop: Loop) -> tuple[int, int]:
    return loop.fmas + loop.arithmetic, loop.vector_bits


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
