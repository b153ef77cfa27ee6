"""The tool that tries mutants: it finds them, and knows which tests concern each file."""

from __future__ import annotations

import ast
from pathlib import Path

import mutate
import pytest
from mutate import ROOT, WINGS, dependents, drawn, equivalents

FILES = [path.relative_to(ROOT).as_posix() for wing in WINGS for path in sorted((ROOT / wing).rglob("*.py"))]


def changes(text: str) -> list[str]:
    """The text after each change."""
    finder = mutate._Finder("kernels/x.py", text)
    finder.visit(ast.parse(text))
    return [mutant.apply(text) for mutant in finder.found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a + (b)", ["x = a - (b)"]),
        ("x += 2", ["x -= 2", "x += (2 + 1)"]),
        ("x = not a and b", ["x = not a or b", "x = a and b"]),
        ("x = 0.5", ["x = (0.5 * 1.5 + 0.1)"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("save(True)", ["pass", "save(False)"]),
        ("if done:\n    pass", ["if not done:\n    pass"]),
        ("x: int = f('é', 1)", ["x: int = f('é', (1 + 1))"]),
        ('"""A docstring 1."""\n__all__ = ["a"]', []),
        ("def f(x: A[3] = 4) -> A[1]:\n    pass", ["def f(x: A[3] = (4 + 1)) -> A[1]:\n    pass"]),
        ("def f(x: int):\n    raise E(f'{x + 1}')", []),
    ],
)  # fmt: skip
def test_what_is_changed(text: str, wanted: list[str]) -> None:
    assert changes(text) == wanted


@pytest.mark.parametrize("file", FILES)
def test_each_file_has_tests(file: str) -> None:
    """A file that is new or renamed needs an entry in TESTS, unless it holds no code to change. All mutants parse."""
    finder = mutate._Finder(file, (ROOT / file).read_text(encoding="utf-8"))
    finder.visit(ast.parse(finder.text))
    if finder.found:
        assert mutate.tests_of(file)
        for mutant in finder.found[:: 1 + len(finder.found) // 5]:
            ast.parse(mutant.apply(finder.text))


def test_a_seed_draws_the_same_mutants_of_each_wing() -> None:
    first = drawn(8, 5)
    assert first == drawn(8, 5)
    assert first != drawn(8, 6)
    assert [next(wing for wing in WINGS if each.file.startswith(wing)) for each in first] == [*WINGS, *WINGS]


def test_compiled_code_is_forgotten_with_what_it_depends_on() -> None:
    assert dependents(ROOT / "kernels", "kernels/numba_jit/layernorm.py") == {"decode", "layernorm"}
    assert {"linear", "attention", "decode"} <= dependents(ROOT / "kernels", "kernels/numba_jit/_simd/vector.py")
    assert not dependents(ROOT / "kernels", "bevia_fast/data/corpus.py")


def test_mutants_of_the_cache_keep_its_folder() -> None:
    """Whether they lie before or behind what the tool itself changes there."""
    text = (ROOT / mutate.CACHE).read_text(encoding="utf-8")
    place = text.index("= all_versions() / _version()")
    mutants = mutate.mutants_of(mutate.CACHE)
    for mutant in (mutants[0], mutants[-1]):
        changed = mutate.one_version(mutant.apply(text))
        assert '= all_versions() / "m"' in changed
        assert mutant.new in changed
        ast.parse(changed)
    assert mutants[0].start < place < mutants[-1].start


def test_equivalent_mutants_have_reasons_and_exist() -> None:
    for (file, change), reason in equivalents().items():
        line = change.rpartition(": ")[0]
        assert reason
        assert line in [each.strip() for each in (Path(ROOT) / file).read_text(encoding="utf-8").splitlines()], line
