"""What the chapters quote is in the code, what they compute is right, and what they show is what the program draws."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from bevia_fast.kernels import BACKENDS, get_backend
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.playbook.chapters import EXAMPLE, Chapter, Quotation, read_chapters
from bevia_fast.playbook.twins import compare_with_twin, namespace, small_cases, twins

ROOT = Path(__file__).parents[2]  # the package may be installed elsewhere
CHAPTERS = read_chapters()
QUOTATIONS = [quotation for chapter in CHAPTERS for quotation in chapter.quotations]
TWINS = namespace()


def by_name(chapters: list[Chapter]) -> list[object]:
    return [pytest.param(chapter, id=chapter.name) for chapter in chapters]


@pytest.mark.parametrize("quotation", QUOTATIONS, ids=str)
def test_each_quotation_occurs_once_in_its_function(quotation: Quotation) -> None:
    assert len(quotation.lines((ROOT / quotation.path).read_text("utf-8"))) == 1


def test_code_blocks_are_what_the_tests_know() -> None:
    """A block of another kind, or a quotation whose heading is misspelled, would be checked by nothing."""
    for chapter in CHAPTERS:
        fences = re.findall(r"^```(\w*)$", chapter.text, re.MULTILINE)
        opened = [fence for fence in fences if fence]
        assert len(fences) == 2 * len(opened), chapter.name
        assert set(opened) <= {"py", "python", "pycon", "sh", "text"}, chapter.name
        assert opened.count("py") == len(chapter.quotations), chapter.name
        assert opened.count("python") == len(chapter.twins), chapter.name
        assert opened.count("pycon") == len(chapter.examples), chapter.name


def test_every_operation_has_a_twin_in_one_chapter() -> None:
    names = [name for chapter in CHAPTERS for name in chapter.twins]
    assert len(names) == len(set(names))
    assert OPERATIONS.keys() <= set(names)
    assert {name: TWINS[name].__name__ for name in names} == {name: name for name in names}
    assert twins().softmax([[0.0, 0.0]]) == ([[0.5, 0.5]], [pytest.approx(0.6931471805599453)])


def test_every_operation_is_quoted() -> None:
    """The chapter with the twin of an operation quotes the NumPy code of it, or what that code calls."""
    for chapter in CHAPTERS:
        files = {quotation.path for quotation in chapter.quotations}
        for operation in OPERATIONS.keys() & chapter.twins.keys():
            module = getattr(get_backend("numpy"), operation).__module__.removeprefix("bevia_fast.").replace(".", "/")
            assert f"{module}.py" in files, (chapter.name, operation)


@pytest.mark.parametrize("backend_name", list(BACKENDS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_twins_agree_with_both_backends(operation: str, dtype: str, backend_name: str) -> None:
    chosen = small_cases(operation)
    assert chosen
    for case in chosen:
        for result in compare_with_twin(case, dtype, get_backend(backend_name), TWINS[operation]):
            assert result.ok, result


@pytest.mark.parametrize("chapter", by_name(CHAPTERS))
def test_examples_run(chapter: Chapter) -> None:
    """Each block goes on where the one before it ended, with the functions of all chapters so far."""
    known = namespace(chapter.name)
    lines = {found.start(1): chapter.text.count("\n", 0, found.start(1)) for found in EXAMPLE.finditer(chapter.text)}
    assert len(lines) == len(chapter.examples)
    failed: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for block, line in zip(chapter.examples, lines.values(), strict=True):
        test = doctest.DocTestParser().get_doctest(block, known, chapter.name, f"{chapter.name}.md", line)
        assert test.examples
        runner.run(test, out=failed.append, clear_globs=False)
        known = test.globs
    assert not failed, "".join(failed)


@pytest.mark.parametrize("chapter", by_name(CHAPTERS[1:-1]))
def test_each_chapter_has_its_parts(chapter: Chapter) -> None:
    """A question, an example with numbers, code, what goes wrong without it, and exercises with solutions that run."""
    assert chapter.text.startswith("# ")
    assert re.search(r"^\*\*The question\.\*\* ", chapter.text, re.MULTILINE)
    assert chapter.quotations
    assert chapter.examples
    assert chapter.figures
    assert "\n## Without it\n" in chapter.text
    assert "\n## Exercises\n" in chapter.text
    exercises = chapter.text.partition("\n## Exercises\n")[2]
    solutions = exercises.split("<summary>Solution</summary>")[1:]
    assert len(solutions) >= 2
    for solution in solutions:
        assert "```pycon" in solution.partition("</details>")[0]


def test_links_between_chapters_lead_somewhere() -> None:
    for chapter in CHAPTERS:
        prose = re.sub(r"^```\w+\n.*?^```$", "", chapter.text, flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[\w-]+)?\)", prose):
            assert (ROOT / "docs/playbook" / link).exists(), (chapter.name, link)
