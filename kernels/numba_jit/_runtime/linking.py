"""What is compiled into a kernel is not compiled by itself as well.

A kernel is linked from its own code and that of all functions it calls; the whole is optimised and translated into
machine code. Numba does that with each of these functions too, before it links it into the next, and with three
wrappers around the body of each parallel loop. So the same loops are optimised and translated up to six times, one
inside the other, and all but the last are thrown away. Here they are linked as they are: that leaves two fifths of the
time to compile, and the same kernels.

What that takes is to override two methods of Numba's. A version that does not call them compiles as it always did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from .interrupts import checkpoint

_whole = ""  # the function that becomes machine code


class _Library(JITCodeLibrary):
    """The code of a function or of a wrapper, with that of all it calls."""

    def _optimize_final_module(self) -> None:
        checkpoint()
        if self.name == _whole:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        if self.name == _whole:
            super()._finalize_final_module()
            return
        # Into a variable of each function Numba writes the address of the constants that it has from Python: there has
        # to be one, and what the function is linked into will share it.
        known = self._codegen._engine.is_symbol_defined
        shared = [variable for variable in self._final_module.global_variables
                  if variable.linkage == llvm.Linkage.common and not known(variable.name)]  # fmt: skip
        if shared:
            self._codegen._add_module(llvm.parse_assembly("\n".join(map(str, shared))))
        self._finalized = True


@contextlib.contextmanager
def only(whole: str) -> Iterator[None]:
    """Within, no function becomes machine code but the one called `whole`."""
    global _whole
    codegen = cpu_target.target_context.codegen()
    with global_compiler_lock:
        before, _whole = (codegen._library_class, _whole), whole
        codegen._library_class = _Library
        try:
            yield
        finally:
            codegen._library_class, _whole = before
