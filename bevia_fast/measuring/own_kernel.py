"""A kernel of the user's, in a file of the user's: `bevia-fast profile mine.py:fast_gelu --like gelu_forward`.

It is called as the operation that it computes, with the arguments of the contract by name, and like both backends it is
compared with NumPy's before it is timed.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError, UserError, shown
from ..kernels.contract import OPERATIONS

PROCESS = "own"  # the name of the competitor that runs it


@dataclass(frozen=True)
class OwnKernel:
    """A function in a Python file, and the operation of the contract that it computes."""

    path: str
    function: str
    operation: str

    @property
    def label(self) -> str:
        """The name in tables, such as "mine.py:fast_gelu"."""
        return f"{Path(self.path).name}:{self.function}"

    def load(self) -> Callable[..., Any]:
        """Run the file and return the function. Raises UserError, in one sentence, if that fails."""
        function = getattr(load_file(self.path), self.function, None)
        if not callable(function):
            raise UserError(f"{shown(self.path)} has no function {shown(self.function)!r}.")
        return function  # type: ignore[no-any-return]


def load_file(path: str) -> ModuleType:
    """Run a Python file and return it as a module. Raises UserError, in one sentence, if that fails."""
    name = f"bevia_fast_own_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{shown(path)} is not a Python file.")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where Numba looks for it
    sys.path.insert(0, str(Path(path).resolve().parent))  # so that it can import the files beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{shown(path)} cannot be run: {type(error).__name__}: {shown(reason)}.") from error
    finally:
        sys.path.pop(0)
    return module


def own_kernel(name: str, like: str) -> OwnKernel:
    """Return the kernel that is named FILE.py:FUNCTION and computes the operation `like`; without `like`, that with the
    name of the function. Raises ConfigError."""
    path, _, function = name.rpartition(":")
    operation = like or function
    if not Path(path).is_file():
        raise ConfigError(f"There is no file {shown(path)}.")
    if operation not in OPERATIONS:
        close = difflib.get_close_matches(operation, OPERATIONS, 1, 0.5)
        meant = f" (did you mean {close[0]}?)" if close else ""
        what = f"--like {shown(like)}" if like else f"The function {shown(function)}"
        advice = "" if like else "; say with --like what it computes"
        raise ConfigError(f"{what} is no operation{meant}{advice}; `bevia-fast profile list` lists them.")
    return OwnKernel(path, function, operation)
