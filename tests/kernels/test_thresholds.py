"""Every threshold of the Numba kernels has cases on all of its sides."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thresholds import OTHERS, THRESHOLDS, sides

from bevia_fast.agreement.cases import cases
from bevia_fast.kernels import numba_jit

FOLDER = Path(numba_jit.__file__).parent


def is_number(value: Any) -> bool:
    """Whether it is an integer, or a tuple of integers, however deep."""
    if isinstance(value, tuple):
        return bool(value) and all(is_number(item) for item in value)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def names_of(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Tuple):
        for item in target.elts:
            yield from names_of(item)
    elif isinstance(target, ast.Name):
        yield target.id


def constants() -> Iterator[str]:
    """The qualified name of every integer that a module of the Numba kernels defines in capitals."""
    for path in sorted(FOLDER.rglob("*.py")):
        name = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        module = importlib.import_module(f"{numba_jit.__name__}.{name}") if path.stem != "__init__" else numba_jit
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for constant in (each for target in targets for each in names_of(target)):
                if constant.isupper() and is_number(getattr(module, constant)):
                    yield f"{name}.{constant}"


def test_the_table_is_complete() -> None:
    """A new constant needs cases on both of its sides, or a reason why it is no threshold."""
    found = set(constants())
    assert found - THRESHOLDS.keys() - OTHERS.keys() == set(), "add these to tests/kernels/thresholds.py"
    assert (THRESHOLDS.keys() | OTHERS.keys()) - found == set(), "these no longer exist"
    assert not THRESHOLDS.keys() & OTHERS.keys()
    assert all(OTHERS.values())


def numbers_in_conditions() -> Iterator[str]:
    """Where a number above 4 stands in a comparison, or in a call of `min` or `max`, instead of a name."""
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            inside = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("min", "max"):
                inside = list(node.args)
            for number in (each for part in inside for each in ast.walk(part) if isinstance(each, ast.Constant)):
                if type(number.value) is int and number.value > 4:
                    yield f"{path.relative_to(FOLDER).as_posix()}: {ast.unparse(node)}"


def test_no_threshold_is_hidden_in_a_condition() -> None:
    known = {
        "_simd/exponential.py": "bits of an element", "_simd/vector.py": "bits of an element",
        "_simd/product_plan.py": "panels % c == 0 or panels >= 8 * c", "_simd/rows.py": "max(8, PART // B.columns)",
        "_simd/reductions.py": "bits of an element", "_simd/elementwise.py": "bits of an element",
    }  # fmt: skip
    hidden = [place for place in numbers_in_conditions() if place.split(":")[0] not in known]
    assert hidden == []


@pytest.mark.parametrize("name", THRESHOLDS)
def test_there_are_cases_on_all_sides(name: str, dtype: str) -> None:
    threshold = THRESHOLDS[name]
    for operation in threshold.operations:
        found = sides(threshold, cases(operation), dtype)
        assert found >= set(threshold.sides), f"{operation} has no case on the side {set(threshold.sides) - found}"
        assert len(threshold.sides) > 1 or found == set(threshold.sides)
