"""Functions that are compiled into a kernel are not compiled separately as well.

A kernel is linked from its own code and that of all functions it calls; the whole is optimized and translated to
machine code. Numba does the same with each of these functions before it links it into its caller, and with three
wrappers around the body of each parallel loop. So the same loops are optimized and translated up to six times, one
inside the other, and all but the last result are thrown away. Here functions are linked unoptimized, which reduces
compilation to two fifths of the time and gives the same kernels.

This overrides two methods of Numba. With a version of Numba that does not call them, compilation is only slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from .interrupts import checkpoint

_whole = ""  # the function that is translated to machine code


class _Library(JITCodeLibrary):
    """The code of a function or a wrapper, including that of its callees."""

    def _optimize_final_module(self) -> None:
        checkpoint()
        if self.name == _whole:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        if self.name == _whole:
            super()._finalize_final_module()
            return
        # Numba stores the address of a function's Python constants in a variable of that function. The variable must
        # exist, and the code that the function is linked into shares it.
        known = self._codegen._engine.is_symbol_defined
        shared = [variable for variable in self._final_module.global_variables
                  if variable.linkage == llvm.Linkage.common and not known(variable.name)]  # fmt: skip
        if shared:
            self._codegen._add_module(llvm.parse_assembly("\n".join(map(str, shared))))
        self._finalized = True


@contextlib.contextmanager
def only(whole: str) -> Iterator[None]:
    """Inside this context, translate only the function named `whole` to machine code."""
    global _whole
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        before, _whole = (codegen._library_class, _whole), whole
        codegen._library_class = _Library
        try:
            yield
        finally:
            codegen._library_class, _whole = before
