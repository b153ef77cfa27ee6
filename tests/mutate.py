"""Change one thing in the code at a time, run the tests that concern it, and report which changes no test notices.

    .venv/bin/python tests/mutate.py --count 100 --seed 1 --report mutants.jsonl   # takes hours; run by hand, not in CI
    .venv/bin/python tests/mutate.py --report mutants.jsonl --again                # try those once more that survived
    .venv/bin/python tests/mutate.py --report mutants.jsonl --count 0              # only print the figures
    .venv/bin/python tests/mutate.py --at bevia_fast/data/corpus.py:57 --report -  # every mutant of one line

It works on a copy of the files that git knows, on one core. A mutant that changes nothing that a test could see, such
as how often a file's pages are released, is equivalent: write it and the reason into `tests/equivalent_mutants.txt`,
after reading the code. The figures count such mutants apart.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.txt")
WINGS = ("kernels", "bevia_fast/training", "bevia_fast/data", "bevia_fast/runs")
TESTS = {  # by the first pattern that matches; the quickest first, for the first failure ends it
    "kernels/numba_jit/_runtime/team.py": "tests/kernels/runtime/test_team.py tests/kernels/test_decode.py",
    "kernels/numba_jit/_runtime/scratch.py": "tests/kernels/test_allocation.py tests/kernels/runtime/test_threads.py",
    "kernels/numba_jit/_runtime/rehearsal.py": "tests/planning/test_rehearsal.py",
    "kernels/numba_jit/_runtime/launches.py": "tests/kernels/test_tape.py tests/kernels/runtime",
    "kernels/numba_jit/_runtime/*": "tests/kernels/simd/test_target.py tests/kernels/runtime",
    "kernels/numba_jit/_simd/attention_*": "tests/kernels/test_attention.py",
    "kernels/numba_jit/_simd/norm_rows.py": "tests/kernels/test_layernorm.py",
    "kernels/numba_jit/_simd/adamw_update.py": "tests/kernels/test_adamw.py",
    "kernels/numba_jit/_simd/muon_plan.py": "tests/kernels/test_muon.py tests/kernels/test_guards.py",
    "kernels/numba_jit/_simd/muon_update.py": "tests/kernels/test_muon.py",
    "kernels/numba_jit/_simd/symmetric.py": "tests/kernels/test_muon.py tests/kernels/test_guards.py",
    "kernels/numba_jit/_simd/records.py": "tests/kernels/simd/test_records.py tests/kernels/test_decode.py",
    "kernels/numba_jit/_simd/rows.py": "tests/kernels/test_decode.py",
    "kernels/numba_jit/_simd/softmax.py": "tests/kernels/test_cross_entropy.py tests/kernels/test_attention.py",
    "kernels/numba_jit/_simd/probe.py": "tests/kernels/simd/test_probe.py",
    "kernels/numba_jit/_simd/exponential.py": "tests/kernels/simd/test_vector.py tests/kernels/test_cross_entropy.py",
    "kernels/numba_jit/_simd/elementwise.py":
        "tests/kernels/test_activation.py tests/kernels/test_dropout.py tests/kernels/test_linear.py "
        "tests/kernels/test_embedding.py tests/kernels/test_nan.py",
    "kernels/numba_jit/_simd/normal.py": "tests/kernels/simd/test_vector.py tests/kernels/test_activation.py",
    "kernels/numba_jit/_simd/polynomials.py": "tests/kernels/simd/test_vector.py",
    "kernels/numba_jit/_simd/reductions.py": "tests/kernels/test_adamw.py tests/kernels/test_attention.py",
    "kernels/numba_jit/_simd/*":
        "tests/kernels/simd tests/kernels/test_linear.py tests/kernels/test_attention.py "
        "tests/kernels/test_layernorm.py tests/kernels/test_thresholds.py tests/kernels/test_guards.py",
    "kernels/numba_jit/linear*":
        "tests/kernels/test_linear.py tests/kernels/test_guards.py tests/kernels/runtime/test_threads.py",
    "kernels/numba_jit/attention*":
        "tests/kernels/test_attention.py tests/kernels/test_guards.py tests/kernels/runtime/test_threads.py",
    "kernels/numba_jit/_decoding.py": "tests/kernels/test_decode.py",
    "kernels/*/decode.py": "tests/kernels/test_decode.py tests/model/test_writing.py",
    "kernels/n*/*.py": "tests/kernels/test_{stem}.py tests/kernels/golden tests/kernels/test_guards.py",
    "kernels/rng.py": "tests/kernels/test_dropout.py tests/data/test_corpus.py tests/kernels/test_sampling.py",
    "kernels/tape.py": "tests/kernels/test_tape.py tests/kernels/test_allocation.py",
    "kernels/cost*.py": "tests/kernels/test_cost.py",
    "kernels/operations.py": "tests/kernels/test_cost.py tests/kernels/test_contract.py",
    "kernels/windows.py": "tests/kernels/test_decode.py tests/model/test_writing.py",
    "kernels/instruments.py":
        "tests/measuring/test_trace.py tests/kernels/test_tape.py tests/training/test_divergence.py",
    "kernels/memory.py": "tests/kernels/test_allocation.py tests/planning/test_memory.py tests/model/test_recompute.py",
    "kernels/lock.py": "tests/test_files.py tests/test_platforms.py tests/training/test_resume.py",
    "kernels/*.py": "tests/kernels/test_contract.py tests/kernels/test_parameters.py",
    "bevia_fast/data/guessing.py": "tests/data/test_decoding.py",
    "bevia_fast/data/encoding.py": "tests/data/test_tokenfile.py tests/data/test_sources.py",
    "bevia_fast/data/sources.py":
        "tests/data/test_sources.py tests/data/test_selection.py tests/data/test_decoding.py",
    "bevia_fast/data/staged.py": "tests/training/test_stages.py",
    "bevia_fast/data/bytelevel.py": "tests/data/test_vocabularies.py tests/training/test_byte_tokens.py",
    "bevia_fast/data/bpe.py": "tests/data/test_vocabularies.py",
    "bevia_fast/data/chunks.py": "tests/data/test_vocabularies.py",
    "bevia_fast/data/given.py": "tests/data/test_vocabularies.py",
    "bevia_fast/data/learning.py": "tests/data/test_vocabularies.py",
    "bevia_fast/data/texts.py": "tests/data/test_vocabularies.py tests/data/test_tokenfile.py",
    "bevia_fast/data/vocabulary.py": "tests/data/test_vocabularies.py tests/data/test_tokenizer.py",
    "bevia_fast/data/*.py": "tests/data/test_{stem}.py",
    "bevia_fast/runs/folder.py":
        "tests/runs/test_folder.py tests/training/test_saving.py tests/training/test_resume.py",
    "bevia_fast/runs/spikes.py": "tests/training/test_divergence.py",
    "bevia_fast/runs/checkpoint.py":
        "tests/training/test_saving.py tests/runs/test_damage.py tests/training/test_resume.py "
        "tests/training/test_divergence.py",
    "bevia_fast/runs/film.py": "tests/runs/test_film.py tests/training/test_filming.py",
    "bevia_fast/runs/best.py": "tests/training/test_best_model.py",
    "bevia_fast/runs/progress.py": "tests/training/test_best_model.py tests/runs/test_damage.py",
    "bevia_fast/runs/*.py": "tests/runs tests/training/test_loop.py",
    "bevia_fast/training/best.py": "tests/training/test_best_model.py",
    "bevia_fast/training/filming.py": "tests/training/test_filming.py",
    "bevia_fast/training/compiling.py": "tests/training/test_compiling.py",
    "bevia_fast/training/signals.py":
        "tests/training/test_signals.py tests/training/test_loop.py tests/test_platforms.py",
    "bevia_fast/training/diagnosis.py": "tests/training/test_divergence.py",
    "bevia_fast/training/opening.py":
        "tests/training/test_loop.py tests/training/test_divergence.py tests/training/test_resume.py "
        "tests/runs/test_damage.py",
    "bevia_fast/training/schedule.py": "tests/training/test_schedule.py",
    "bevia_fast/training/step.py": "tests/training/test_loop.py tests/training/test_divergence.py",
    "bevia_fast/training/evaluation.py": "tests/training/test_loop.py tests/training/test_resume.py",
    "bevia_fast/training/saving.py":
        "tests/training/test_saving.py tests/runs/test_folder.py tests/runs/test_damage.py tests/runs/test_faults.py",
    "bevia_fast/training/twins.py": "tests/commands/test_cli.py tests/agreement",
    "bevia_fast/training/*.py":
        "tests/training/test_loop.py tests/training/test_divergence.py tests/training/test_resume.py",
}  # fmt: skip
CACHE = "kernels/numba_jit/_runtime/cache.py"
TWO_CORES = ("bevia_fast/training/compiling.py", "kernels/numba_jit/_runtime/")  # with one, their tests are skipped
LEFT_OUT = ("tests/training/test_resume.py::test_kill_9_a_few_times",)  # slow, and no mutant needs it
OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"), ast.And: ("and", "or"), ast.Or: ("or", "and"), ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"),
    ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "&"),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "True": "False", "False": "True", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change: `old` at a place of a file becomes `new`."""

    file: str
    line: int
    start: int  # offset in the file's text
    old: str
    new: str

    def apply(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.start + len(self.old) :]


# ------------------------------------------------------------------------------------------------------------- mutants


class _Finder(ast.NodeVisitor):
    """Collects the mutants of a file. Annotations, decorators, strings and lists of names are left alone, and so are
    the numbers of `numba_jit` that are named in capitals: they choose a way to compute, not a result."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.found = file, text, list[Mutant]()
        self.lines = [0]
        for line in text.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def place(self, line: int, column: int) -> int:
        """The offset of a place whose column ast counts in UTF-8."""
        start = self.lines[line - 1]
        return start + len(self.text[start : self.lines[line]].encode()[:column].decode())

    def begin(self, node: ast.expr | ast.stmt) -> int:
        return self.place(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        return self.place(node.end_lineno or 0, node.end_col_offset or 0)

    def add(self, start: int, old: str, new: str) -> None:
        self.found.append(Mutant(self.file, self.text.count("\n", 0, start) + 1, start, old, new))

    def operator(self, kind: ast.AST, left: ast.expr, right: ast.expr) -> None:
        """The operator between two operands, which parentheses and comments may surround."""
        if type(kind) not in OPERATORS:
            return
        old, new = OPERATORS[type(kind)]
        start, end = self.end(left), self.begin(right)
        between = self.text[start:end]
        if between.count(old) == 1 and "#" not in between:
            self.add(start + between.index(old), old, new)

    def visit_Compare(self, node: ast.Compare) -> None:
        for kind, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
            self.operator(kind, left, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.operator(node.op, node.left, node.right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.operator(node.op, left, right)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.add(self.begin(node), "not ", "")
        elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self.add(self.begin(node), "-", "+")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if type(node.value) in (int, float):
            old = self.text[self.begin(node) : self.end(node)]
            self.add(self.begin(node), old, f"({old} + 1)" if type(node.value) is int else f"({old} * 1.5 + 0.1)")
        elif type(node.value) is bool:
            self.add(self.begin(node), str(node.value), NAMES[str(node.value)])

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # `zip` raises only where the code around it is wrong
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES and isinstance(node.ctx, ast.Load):
            self.add(self.begin(node), node.id, NAMES[node.id])

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.operator(node.op, node.target, node.value)  # type: ignore[arg-type]
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and node.lineno == node.end_lineno:  # a call for its effect
            self.add(self.begin(node), self.text[self.begin(node) : self.end(node)], "pass")
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        test = self.text[self.begin(node.test) : self.end(node.test)]
        if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            self.add(self.begin(node.test), test, f"not {test}")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        tuned = "numba_jit" in self.file and node.col_offset == 0 and all(name.isupper() for name in names)
        if not tuned and names != ["__all__"]:
            self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return


def mutants_of(file: str) -> list[Mutant]:
    """All mutants of a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    finder = _Finder(file, text)
    finder.visit(ast.parse(text))
    return [one for one in finder.found if text.startswith(one.old, one.start)]


def drawn(count: int, seed: int) -> list[Mutant]:
    """As many mutants from each wing, at random."""
    generator, found = random.Random(seed), list[list[Mutant]]()
    for wing in WINGS:
        files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / wing).rglob("*.py"))
        everything = [mutant for file in files for mutant in mutants_of(file)]
        found.append(generator.sample(everything, -(-count // len(WINGS))))
    return [wing[i] for i in range(len(found[0])) for wing in found][:count]


# ------------------------------------------------------------------------------------------------------------- running


def tests_of(file: str) -> list[str]:
    """The test files that concern a file."""
    tests = next(tests for pattern, tests in TESTS.items() if fnmatch(file, pattern))
    return [path for path in tests.replace("{stem}", Path(file).stem).split() if (ROOT / path).exists()]


class Workshop:
    """A copy of the project in which mutants are tried."""

    def __init__(self, folder: Path, trusted: float = 0.0) -> None:
        """With `trusted`, the tests are known to pass without a mutant, and get so many seconds."""
        self.tree, self.cache, self.trusted = folder / "tree", folder / "cache", trusted
        known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, known.split("\0")):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy2(ROOT / name, self.tree / name)
        (self.tree / "bevia_fast/kernels").symlink_to("../kernels")
        # compiled code is kept from one mutant to the next, except for what depends on the mutant
        cache = self.tree / CACHE
        self.original = cache.read_text(encoding="utf-8")
        cache.write_text(one_version(self.original), encoding="utf-8")
        self.timeouts: dict[str, float] = {}
        self.cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def run(self, tests: list[str], seconds: float) -> tuple[str, str, float]:
        """Run tests; return "passed", "failed" or "timeout", the first failure, and how long it took. If someone else
        ends the process, it starts again."""
        environment = os.environ | {
            "PYTHONPATH": str(self.tree), "BEVIA_FAST_CACHE_DIR": str(self.cache), "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_NUM_THREADS": "2",
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *tests]
        command += [f"--deselect={test}" for test in LEFT_OUT]
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "timeout", "", time.monotonic() - began
        if process.returncode in (-signal.SIGTERM, -signal.SIGKILL, -signal.SIGINT):
            return self.run(tests, seconds)
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        outcome = "passed" if process.returncode == 0 else "failed"
        return outcome, failed[0] if failed else f"exit code {process.returncode}", time.monotonic() - began

    def prepare(self, tests: list[str]) -> float:
        """Check that the tests pass without a mutant; return the time limit for mutants."""
        key = " ".join(tests)
        if key not in self.timeouts and not self.trusted:
            outcome, failure, seconds = self.run(tests, 3600)
            if outcome != "passed":
                raise SystemExit(f"the tests fail without a mutant: {key}: {failure}")
            self.timeouts[key] = 2 * seconds + 60
        return self.trusted or self.timeouts[key]

    def try_out(self, mutant: Mutant) -> dict[str, object]:
        """Return the mutant with what became of it."""
        tests = tests_of(mutant.file)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores if mutant.file.startswith(TWO_CORES) else {max(self.cores)})
        limit = self.prepare(tests)
        self.forget(mutant.file)
        path = self.tree / mutant.file
        whole = path.read_text(encoding="utf-8")
        changed = one_version(mutant.apply(self.original)) if mutant.file == CACHE else mutant.apply(whole)
        path.write_text(changed, encoding="utf-8")
        try:
            outcome, failure, seconds = self.run(tests, limit)
        finally:
            path.write_text(whole, encoding="utf-8")
            self.forget(mutant.file)
        state = "survived" if outcome == "passed" else "killed"
        return {**asdict(mutant), "state": state, "by": failure or outcome, "seconds": round(seconds)}

    def forget(self, file: str) -> None:
        """Remove compiled code that depends on a file."""
        for module in dependents(self.tree / "kernels", file):
            for path in self.cache.rglob(f"{module}.*"):
                path.unlink()


def one_version(text: str) -> str:
    """Return the source of the kernel cache with a folder whose name does not depend on the sources."""
    return text.replace("= all_versions() / _version()", '= all_versions() / "m"')


def dependents(kernels: Path, file: str) -> set[str]:
    """The stems of the modules of compiled kernels that import a file, or a module that imports it, or are it."""
    if not file.startswith("kernels/"):
        return set()
    imports: dict[str, set[str]] = {}
    for path in kernels.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names |= {(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)}
        imports[path.stem] = imports.get(path.stem, set()) | names
    found = {Path(file).stem}
    while True:
        more = {stem for stem, names in imports.items() if names & found} - found - {"__init__"}
        if not more:
            return found
        found |= more


# ------------------------------------------------------------------------------------------------------------ reporting


def equivalents() -> dict[tuple[str, str], str]:
    """The reasons why mutants are equivalent, by file and change."""
    found = {}
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines() if EQUIVALENT.exists() else []:
        if line and not line.startswith("#"):
            file, change, reason = line.split(" | ")
            found[file, change] = reason
    return found


def change_of(mutant: dict[str, object]) -> str:
    """The changed line, as it stands in the file of equivalent mutants: the text of the line, then the change."""
    line = (ROOT / str(mutant["file"])).read_text(encoding="utf-8").splitlines()[int(str(mutant["line"])) - 1].strip()
    return f"{line}: {mutant['old']} -> {mutant['new']}"


def summary(results: list[dict[str, object]]) -> str:
    """The survivors, and the figures by wing."""
    known, lines, figures = equivalents(), list[str](), Counter[tuple[str, str]]()
    for result in results:
        wing = next(wing for wing in WINGS if str(result["file"]).startswith(wing))
        state = str(result["state"])
        if state == "survived":
            change = change_of(result)
            state = "equivalent" if (str(result["file"]), change) in known else state
            if state == "survived":
                lines.append(f"survived: {result['file']} | {change} | (line {result['line']})")
        figures[wing, state] += 1
        figures[wing, "timeout"] += result["by"] == "timeout"
    for wing in (*WINGS, ""):
        count = {state: sum(n for (w, s), n in figures.items() if s == state and w.startswith(wing)) for state in
                 ("killed", "survived", "equivalent", "timeout")}  # fmt: skip
        real = count["killed"] + count["survived"]
        lines.append(
            f"{wing or 'all'}: {real + count['equivalent']} mutants, {count['equivalent']} equivalent, "
            f"{count['killed']} of {real} others killed" + (f" ({count['killed'] / real:.1%})" if real else "")
            + f", {count['timeout']} of them by a time limit" * (count["timeout"] > 0)
        )
    return "\n".join(lines)


def places(text: str) -> Iterator[Mutant]:
    """The mutants of FILE:LINE."""
    file, _, line = text.rpartition(":")
    yield from (mutant for mutant in mutants_of(file) if mutant.line == int(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", default="mutants.jsonl", help="file to append each result to; - for none")
    parser.add_argument("--again", action="store_true", help="try those again that survived according to the report")
    parser.add_argument("--at", metavar="FILE:LINE", action="append", default=[], help="the mutants of a line")
    parser.add_argument("--trusted", type=float, default=0.0, metavar="SECONDS",
                        help="do not try the tests without a mutant first, and give them so long")  # fmt: skip
    options = parser.parse_args()
    report = None if options.report == "-" else Path(options.report)
    done: list[dict[str, object]] = []
    if report and report.exists():
        done = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    fields = ("file", "line", "start", "old", "new")
    if options.again:
        known = equivalents()
        wanted = [Mutant(**{name: each[name] for name in fields}) for each in done if each["state"] == "survived"  # type: ignore[arg-type]
                  and (each["file"], change_of(each)) not in known]  # fmt: skip
        wanted = [now for mutant in wanted for now in mutants_of(mutant.file)
                  if (now.old, now.new, now.line) == (mutant.old, mutant.new, mutant.line)]  # fmt: skip
        done = [each for each in done if all((each["file"], each["start"]) != (one.file, one.start) for one in wanted)]
    elif options.at:
        wanted = [mutant for place in options.at for mutant in places(place)]
    else:
        tried = {(each["file"], each["start"], each["new"]) for each in done}
        chosen = drawn(options.count, options.seed) if options.count else []
        wanted = [each for each in chosen if (each.file, each.start, each.new) not in tried]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workshop = Workshop(Path(folder), options.trusted) if wanted else None
        for number, mutant in enumerate(wanted, 1):
            assert workshop is not None
            result = workshop.try_out(mutant)
            done.append(result)
            print(f"{number}/{len(wanted)} {result['state']} in {result['seconds']} s: {mutant.file}:{mutant.line} "
                  f"{mutant.old} -> {mutant.new}  {result['by']}", flush=True)  # fmt: skip
            if report:
                report.write_text("".join(json.dumps(each) + "\n" for each in done), encoding="utf-8")
    print(summary(done))


if __name__ == "__main__":
    main()
