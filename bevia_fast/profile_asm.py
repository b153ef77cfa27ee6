"""The hot loops of the compiled kernels, as the machine sees them: `profile KERNEL --asm`."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import numba
import numpy as np

from .assembly import Loop, loops
from .bench_config import ProfileKernelConfig
from .bench_console import progress
from .bench_kernels import job, letters_for, profile_jobs
from .bench_tables import WideConsole, make_table
from .comparison import make_arguments
from .kernels.numba_jit._runtime.launches import Kernel
from .kernels.numba_jit._runtime.target import TARGET
from .kernels.numba_jit._simd import tiles
from .run import open_backend

SHORT_CTX = 64  # enough for the compiler, which does not know the sizes
SHOWN = 80  # lines of a loop
LEGEND = (
    "Arithmetic: vector instructions that compute, other than multiply-adds. Loads and stores: of arrays, operands in "
    "memory too. Spills: of the stack, where addresses and values wait for which there is no register."
)


def show_asm(config: ProfileKernelConfig, console: WideConsole) -> int:
    """Compile the kernels asked for, find their hot loops, print what is in them."""
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
    ))  # fmt: skip
    console.print(LEGEND, soft_wrap=True)
    for operation in without:
        console.print(f"{operation} has no such loop: what computes is compiled apart, and called by its address.",
                      soft_wrap=True)  # fmt: skip
    seen = set()
    for title, loop in listings:
        if loop.lines in seen:
            continue
        seen.add(loop.lines)
        console.print(f"\n{title}", soft_wrap=True)
        for line in loop.lines[:SHOWN]:
            console.print(f"    {line}", soft_wrap=True)
        if len(loop.lines) > SHOWN:
            console.print(f"    ... and {len(loop.lines) - SHOWN} lines more", soft_wrap=True)
    return 0


def hot_loops(operation: str, config: ProfileKernelConfig) -> Iterator[tuple[str, Loop]]:
    """(function, its loop that computes most) for each function that is compiled for an operation; for the matrix
    product the loop of each of its tiles."""
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
                if 8 * (best.fmas + best.arithmetic) >= best.instructions:  # others call what computes, or copy
                    yield name, best
    if "product_address" in used:
        found = [loop for loop in loops(product_asm(config.dtype)) if loop.fmas]
        most = max((loop.fmas for loop in found), default=0)
        for number, loop in enumerate(loop for loop in found if 2 * loop.fmas >= most):
            yield f"product, tile {number + 1}", loop


def _work(loop: Loop) -> tuple[int, int]:
    return loop.fmas + loop.arithmetic, loop.vector_bits


def product_asm(dtype: str) -> str:
    """The machine code of the matrix product, which stands by itself and not in the kernels that call it."""
    signature = tiles.product_signature(np.dtype(dtype))
    text: str = numba.cfunc(signature, error_model="numpy")(tiles._product)._library.get_asm_str()
    return text


def _compiled_anew(dispatcher: Any) -> list[str]:
    """The machine code of a function: compiled again, for Numba does not show what came from its cache."""
    options = {name: value for name, value in dispatcher.targetoptions.items() if name != "nopython"}  # njit says that
    fresh = numba.njit(**options)(dispatcher.py_func)
    for signature in dispatcher.signatures:
        fresh.compile(signature)
    return list(fresh.inspect_asm().values())


def _names(function: FunctionType) -> dict[str, Any]:
    """What a function of a kernel module uses by name, through the module's other Python functions."""
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
