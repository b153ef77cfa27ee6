"""Functions of the Numba kernels have few parameters, so that a call can be read."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from bevia_fast.kernels import numba_jit
from bevia_fast.kernels.contract import OPERATIONS

MOST = 9  # parameters of a function; few need more than seven
FOLDER = Path(inspect.getfile(numba_jit)).parent


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def count_parameters(function: ast.FunctionDef) -> int:
    """Parameters that callers pass: Numba passes an intrinsic its typing context, Python passes a method its object."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a]
    return len(names) - (names[:1] in (["typingctx"], ["self"]))


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_functions_have_few_parameters(path: Path) -> None:
    # the signature of an operation is the contract's; another test compares it with the other backend's
    counts = [(f.name, count_parameters(f)) for f in functions(path) if f.name not in OPERATIONS]
    assert [(name, count) for name, count in counts if count > MOST] == []


def test_parameters_are_counted() -> None:
    def count(source: str) -> int:
        (function,) = ast.parse(source).body
        assert isinstance(function, ast.FunctionDef)
        return count_parameters(function)

    assert count("def f(a, b, /, c, *d, e, **f): pass") == 6
    assert count("def f(typingctx, a): pass") == count("def f(self, a): pass") == count("def f(a): pass") == 1
