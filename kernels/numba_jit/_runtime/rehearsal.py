"""How much working memory calls of the kernels take, found without making them.

The functions of the kernels' modules run with nothing behind them: launches do nothing, and requests for working memory
are recorded. The size thus comes from the lines that request the memory, and no second formula can disagree with them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from ...contract import OPERATIONS, Array
from ...memory import outline
from .launches import Kernel


class Rehearsal:
    """Runs operations on arrays that may be outlines (see `memory.outline`).

    `sizes` holds the most bytes that each purpose has needed, for the current number of threads.
    """

    def __init__(self) -> None:
        self.sizes: dict[tuple[str, np.dtype[Any]], int] = {}
        self._operations: dict[str, Any] = {}
        backend = sys.modules[__package__.rpartition(".")[0]]
        for module in {getattr(backend, operation).__module__ for operation in OPERATIONS}:
            shadow = self._shadow(sys.modules[module])
            self._operations |= {name: shadow[name] for name in shadow.keys() & OPERATIONS.keys()}

    def run(self, operation: str, arguments: Mapping[str, Any]) -> None:
        """Run an operation as if it were called."""
        self._operations[operation](**arguments)

    def _shadow(self, module: ModuleType) -> dict[str, Any]:
        """Return the names of a module, with functions that skip the contract's checks and kernels that do nothing."""
        shadow = dict(vars(module))
        for name, value in vars(module).items():
            function = inspect.unwrap(value) if callable(value) else value
            if isinstance(value, Kernel) or name.endswith("_address"):  # looking one up compiles it
                shadow[name] = _nothing
            elif isinstance(function, FunctionType) and function.__module__ == module.__name__:
                copy = FunctionType(function.__code__, shadow, name, function.__defaults__)
                copy.__kwdefaults__ = function.__kwdefaults__
                shadow[name] = copy
        if "scratch" in shadow:
            shadow["scratch"] = self._scratch
        return shadow

    def _scratch(self, purpose: str, size: int, dtype: np.dtype[Any]) -> Array:
        key = purpose, np.dtype(dtype)
        self.sizes[key] = max(self.sizes.get(key, 0), size * key[1].itemsize)
        return outline(size, dtype)


def _nothing(*arguments: Any) -> float:
    """Stand in for a kernel, or for a function that returns the address of machine code."""
    return 0.0
