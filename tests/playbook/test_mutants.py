"""Each quoted line matters: when it changes, the comparison with its twin in the text fails.

Only lines of the NumPy path and of the model are changed: a module is compiled anew from the changed source, in memory.
"""

from __future__ import annotations

import ast
import importlib
import random
import types
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edges import EDGES
from mutate import ROOT, Mutant, mutants_of
from other_checks import CHECKS

from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.playbook.chapters import Quotation, read_chapters
from bevia_fast.playbook.twins import compare_with_twin, namespace, small_cases

TWINS = namespace()
REFERENCE = "kernels/numpy_ref/"
SAMPLE = 120  # mutants that the default suite tries
# Changed lines that compute the same as the original: (file, the line after the change), and why
EQUIVALENT = {
    # 1 % more than minus infinity is minus infinity
    ("kernels/numpy_ref/attention.py", "scores[:, :, unseen] = (-np.inf) * 1.01"),
    # NumPy finds out the length of an axis for any negative number
    (
        "kernels/numpy_ref/attention.py",
        "q, k, v = qkv.reshape(B, T, 3, num_heads, -(1 + 1)).transpose(2, 0, 3, 1, 4)",
    ),
    # a gradient of exactly the longest length is multiplied by 1 or left alone
    ("bevia_fast/training/step.py", "clipped = config.grad_clip > 0.0 and norm >= config.grad_clip"),
    # the array that it is written to has this type
    ("bevia_fast/data/tokenizer.py", "self._ids[codes] = np.arange(codes.size, dtype=None)"),
    # 1.01 is as true as True
    ("bevia_fast/training/step.py", "clipped = (config.grad_clip > 0.0 and norm > config.grad_clip) * 1.01"),
}


def quoted_mutants() -> list[tuple[Quotation, Mutant]]:
    """Every change of a quoted line that can be tested without compiling for Numba."""
    found, seen = [], set()
    for chapter in read_chapters():
        for quotation in chapter.quotations:
            if "numba_jit" in quotation.path:
                continue
            source = (ROOT / quotation.path).read_text("utf-8")
            [lines] = quotation.lines(source)
            for mutant in [*mutants_of(quotation.path), *whole_values(quotation.path, source)]:
                if mutant.line in lines and mutant not in seen:
                    seen.add(mutant)
                    found.append((quotation, mutant))
    return found


def whole_values(path: str, source: str) -> Iterator[Mutant]:
    """More changes, so that no line is without one: a value that is assigned or returned becomes 1 % larger, a call for
    its effect is left out, and a named argument becomes None."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def mutant(node: ast.expr, new: str) -> Mutant:
        old, line = ast.get_source_segment(source, node) or "", source.splitlines()[node.lineno - 1]
        column = len(line.encode()[: node.col_offset].decode())
        return Mutant(path, node.lineno, starts[node.lineno - 1] + column, old, new.replace("OLD", old))

    for node in ast.walk(ast.parse(source)):
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.AnnAssign) and isinstance(value, ast.expr):
            yield mutant(value, "(OLD) * 1.01")
        elif isinstance(node, ast.Expr) and isinstance(value, ast.Call):
            yield mutant(value, "None")
        elif isinstance(node, ast.Call):
            yield from (mutant(named.value, "None") for named in node.keywords if named.arg)


def compiled(path: str, source: str) -> types.ModuleType:
    """Compile the source of one of our modules anew, under its own name, without touching the original."""
    name = "bevia_fast." + path.removeprefix("bevia_fast/").removesuffix(".py").replace("/", ".")
    original = importlib.import_module(name)
    module = types.ModuleType(name)
    module.__dict__.update(__package__=original.__package__, __file__=original.__file__)
    exec(compile(source, str(original.__file__), "exec"), module.__dict__)
    return module


def agrees(path: str, module: Any) -> bool:
    """Compare the operations that a module of the NumPy path defines, or what else it computes, with their twins."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if path in CHECKS:
            return CHECKS[path](module)
        assert path.startswith(REFERENCE), f"other_checks has no check for {path}"
        own = {name: getattr(module, name, None) for name in OPERATIONS}
        names = [name for name, function in own.items() if getattr(function, "__module__", "") == module.__name__]
        assert names
        backend = SimpleNamespace(name="changed", **own)
        right = EDGES.get(path, lambda module: True)(module)
        return right and all(
            result.ok
            for name in names for case in small_cases(name) for dtype in ("float64", "float32")
            for result in compare_with_twin(case, dtype, backend, TWINS[name])
        )  # fmt: skip


def killed(mutant: Mutant) -> bool:
    source = (ROOT / mutant.file).read_text("utf-8")
    changed = mutant.apply(source)
    assert changed != source
    try:
        return not agrees(mutant.file, compiled(mutant.file, changed))
    except Exception:  # a mutant that does not even run
        return True


def is_equivalent(mutant: Mutant) -> bool:
    changed = mutant.apply((ROOT / mutant.file).read_text("utf-8"))
    return (mutant.file, changed.splitlines()[mutant.line - 1].strip()) in EQUIVALENT


def survivors(mutants: list[tuple[Quotation, Mutant]]) -> list[str]:
    return [
        f"{quotation}: line {mutant.line}: {mutant.old} -> {mutant.new}"
        for quotation, mutant in mutants if not is_equivalent(mutant) and not killed(mutant)
    ]  # fmt: skip


def test_the_code_agrees_when_nothing_is_changed() -> None:
    for path in sorted({mutant.file for _, mutant in quoted_mutants()}):
        assert agrees(path, compiled(path, (ROOT / path).read_text("utf-8"))), path


def test_each_quotation_has_a_mutant() -> None:
    tried = {str(quotation) for quotation, _ in quoted_mutants()}
    for chapter in read_chapters():
        for quotation in chapter.quotations:
            if "numba_jit" not in quotation.path:
                source = (ROOT / quotation.path).read_text("utf-8")
                [lines] = quotation.lines(source)
                every = [*mutants_of(quotation.path), *whole_values(quotation.path, source)]
                assert str(quotation) in tried or any(mutant.line in lines for mutant in every), str(quotation)


def test_some_changes_of_quoted_lines_are_noticed() -> None:
    """A sample of what the slow test tries: the same one in every run."""
    mutants = quoted_mutants()
    assert survivors(random.Random(16).sample(mutants, min(SAMPLE, len(mutants)))) == []


@pytest.mark.slow
def test_all_changes_of_quoted_lines_are_noticed() -> None:
    assert survivors(quoted_mutants()) == []
