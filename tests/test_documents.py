"""What the documents and comments promise: their commands run, their Python runs, their paths exist."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import shlex
import shutil
import sys
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.commands.arguments import parse
from bevia_fast.commands.main import main

ROOT = Path(__file__).parents[1]
FOLDERS = ("bevia_fast", "kernels", "tests", "bench", "docs", ".ci")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TEXT = "The quick brown fox jumps over the lazy dog; for x in range(10): print(x)\n" * 20

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="the documents are not part of a package")


def blocks(language: str) -> list[tuple[str, str]]:
    """(document, text) of each code block in a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(path.name, found[1]) for path in DOCUMENTS for found in fence.finditer(path.read_text("utf-8"))]


def commands() -> list[str]:
    """Every command line of ours in the documents, without its comment."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    parts = [re.split(r"  #| > ", part)[0].strip() for line in lines for part in line.split(" && ")]
    ours = [
        re.sub(r"^(\.venv/bin/)?bevia-fast ", "", part)
        for part in parts
        if re.match(r"(\.venv/bin/)?bevia-fast ", part)
    ]
    return list(dict.fromkeys(ours))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documents' commands find what they name."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("text.txt", "README.md", "CHANGELOG.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(TEXT)
    for _, text in blocks("toml"):  # the first line is the name of the file
        (folder / text.partition("\n")[0].removeprefix("# ")).write_text(text)
    model = ModelConfig(ctx=32, dim=16, layers=1, heads=2)
    train(TrainConfig(data=[str(folder / "text.txt")], out=str(folder / "runs/1"), model=model, steps=3, batch=2,
                      eval_batches=1, sample_every=0, backend="numpy"))  # fmt: skip
    shutil.copytree(folder / "runs/1", folder / "runs/2")
    shutil.copytree(folder / "runs", folder / "experiments")
    return folder


def test_there_are_commands() -> None:
    assert len(commands()) > 20


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(folder)
    if line.split()[0] in ("help", "--version"):  # they only print
        assert main(shlex.split(line)) == 0
    else:
        assert parse(shlex.split(line)) is not None


def test_the_readme_names_texts_that_are_there() -> None:
    """In a clone; other documents say how to get what they name."""
    readme = [block for document, block in blocks("sh") if document == "README.md"]
    texts = [
        word
        for line in commands() if any(line in block for block in readme) and "--data" in line
        for word in line.split("--data ")[1].split(" --")[0].split()
    ]  # fmt: skip
    assert texts
    assert [text for text in texts if not (ROOT / text).is_file()] == []


@pytest.mark.parametrize(
    "line",
    [line for line in commands() if not re.search("--(open|serve)", line)
     and line.split()[0] in ("generate", "attention", "parameters", "explore", "runs", "plot")],
)  # fmt: skip
def test_commands_on_a_run_run(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(folder)
    assert main(shlex.split(line)) == 0


def notebooks() -> list[tuple[str, str]]:
    """(notebook, its code) of each notebook."""
    found = []
    for path in sorted(ROOT.glob("docs/*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        found.append((path.name, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")))
    return found


@pytest.mark.parametrize(("document", "script"), [*blocks("python"), *notebooks()])
def test_python_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, document: str, script: str) -> None:
    """As printed, except that training takes fewer steps."""
    if "TensorBoardReporter()" in script:
        pytest.importorskip("tensorboard")
    if "transformers" in script:
        pytest.importorskip("transformers")
    if "onnxruntime" in script:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "wandb", wandb := Wandb())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow := Mlflow())  # type: ignore[arg-type]
    monkeypatch.chdir(shutil.copytree(folder, folder.with_name(f"{folder.name}-{time.monotonic_ns()}")))
    if "model.onnx" in script:
        assert main(["export", "runs/1", "--format", "onnx", "--to", "model.onnx"]) == 0
    script = re.sub(r"(TrainConfig\(.*|preset\(.*)steps=\d+", r"\1steps=3, eval_batches=1", script)
    script = re.sub(r"(resume\(.*)steps=\d+", r"\1steps=4", script)
    exec(compile(script, document, "exec"), {})
    assert ("import wandb" in script) == bool(wandb.logged)
    assert not wandb.logged or wandb.logged == [0, 1, 2, 3, "end"]
    assert mlflow.logged == (["start", 0, 1, 2, 3, "FINISHED"] if "import mlflow" in script else [])


class Wandb:
    """Stands for Weights & Biases, which needs an account: the calls that its documentation has."""

    def __init__(self) -> None:
        self.logged: list[object] = []

    def init(self, project: str, config: dict[str, object]) -> Wandb:
        assert config["steps"] == 3
        return self

    def log(self, data: dict[str, float], step: int) -> None:
        assert data["step"] == step
        assert None not in data.values()
        self.logged.append(step)

    def finish(self, exit_code: int) -> None:
        assert exit_code == 0
        self.logged.append("end")


class Mlflow:
    """Stands for MLflow, which writes a database: the calls that its documentation has."""

    def __init__(self) -> None:
        self.logged: list[object] = []

    def set_experiment(self, name: str) -> None: ...

    def start_run(self) -> None:
        self.logged.append("start")

    def log_params(self, params: dict[str, object]) -> None:
        assert params["steps"] == 3

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert metrics["step"] == step
        assert all(isinstance(value, int | float) for value in metrics.values())
        self.logged.append(step)

    def end_run(self, status: str) -> None:
        self.logged.append(status)


def test_notebooks_are_stored_without_results() -> None:
    """They differ from machine to machine; CI runs the notebooks."""
    assert [name for name, _ in notebooks()] == ["tour.ipynb"]
    for path in ROOT.glob("docs/*.ipynb"):
        notebook = json.loads(path.read_text("utf-8"))
        assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
        for cell in notebook["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
            assert max(map(len, "".join(cell["source"]).splitlines())) <= 120
        links = re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text("utf-8"))
        assert links
        assert all((path.parent / link).exists() for link in links)


# ---------------------------------------------------------------------------------------------------------------- paths

FILE = re.compile(r"(?<![\w./<-])((?:[\w.-]+/)*[\w.-]+\.(?:py|md|png|cfg|toml|yml))(?![\w/-])")
SUFFIX = re.compile(r"\.(py|md|png|cfg|toml|yml|json|jsonl|txt|safetensors)$")
FOLDER = re.compile(r"(?<![\w./<-])((?:bevia_fast|kernels|tests|bench|docs|\.ci)/(?:[\w.-]+/)*)(?![\w<*-])")
DOTTED = re.compile(r"`((?:bevia_fast|kernels|[a-z_]+)(?:\.\w+)+)`")
# by users and programs
MADE = {
    "loss.png", "runs/losses.png", "attention.png", "roofline.png", "scaling.png", "k.png", "train.py", "mine.py",
    "FILE.py", "poems.toml",
}  # fmt: skip
EXISTING = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*")}


def mentions(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of a document, or of the comments and docstrings of a source."""
    if path.suffix == ".md":
        yield from enumerate(path.read_text("utf-8").splitlines(), 1)
        return
    source = path.read_text("utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def missing_paths(text: str, near: Path) -> list[str]:
    """The files and folders that a text mentions and that do not exist."""
    found = []
    for name in FILE.findall(text):
        known = (
            name in MADE or (ROOT / name).exists() or (near / name).exists() or ("/" not in name and name in EXISTING)
        )
        inside = any((ROOT / folder / name).exists() for folder in ("bevia_fast", "kernels", "kernels/numba_jit"))
        if not (known or inside):
            found.append(name)
    return found + [name for name in FOLDER.findall(text) if not (ROOT / name).is_dir()]


def missing_names(text: str) -> list[str]:
    """The dotted names of our modules that a text mentions and that do not exist."""
    return [name for name in DOTTED.findall(text) if not (SUFFIX.search(name) or _exists(name.split(".")))]


MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in SOURCES
    if path.relative_to(ROOT).parts[0] in ("bevia_fast", "kernels")
}


def _attributes() -> set[str]:
    """The attributes of all our classes: what `config.prompt` may mean where `config` is an object."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found |= {
                    part.target.id
                    for part in node.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                }
                found |= {
                    part.attr
                    for part in ast.walk(node)
                    if isinstance(part, ast.Attribute) and getattr(part.value, "id", "") == "self"
                }
    return found


ATTRIBUTES = _attributes()


def _exists(parts: list[str]) -> bool:
    """Whether a name may be meant as one of ours, and is: module.attribute, from the end of the module's own name."""
    if len(parts) == 2 and parts[1] in ATTRIBUTES:
        return True
    owners = [module for module in MODULES if module == parts[0] or module.endswith(f".{parts[0]}")]
    return not owners or any(_resolves(owner.removeprefix("bevia_fast."), parts[1:]) for owner in owners)


def _resolves(owner: str, parts: list[str]) -> bool:
    """Whether the parts lead from a module to a module or an attribute."""
    found: object = importlib.import_module("bevia_fast" if owner == "bevia_fast" else f"bevia_fast.{owner}")
    for part in parts:
        owner = part if owner == "bevia_fast" else f"{owner}.{part}"
        if {owner, f"bevia_fast.{owner}"} & MODULES:
            found = importlib.import_module(f"bevia_fast.{owner}")
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            return False
    return True


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_mentioned_exists(path: Path) -> None:
    if path == Path(__file__) or path.name == "CHANGELOG.md":
        return
    wrong = []
    for number, text in mentions(path):
        wrong += [f"{path.relative_to(ROOT)}:{number}: {name}" for name in missing_paths(text, path.parent)]
        wrong += [f"{path.relative_to(ROOT)}:{number}: {name}" for name in missing_names(text)]
    assert wrong == []


def test_a_path_that_is_gone_is_found() -> None:
    assert missing_paths("see bevia_fast/timing.py, `kernels/tape.py` and docs/nothing/", ROOT) == [
        "bevia_fast/timing.py", "docs/nothing/",
    ]  # fmt: skip
    assert missing_names("`tape.Tape`, `tape.Reel`, `kernels.contract`, `numpy.linalg.norm`") == ["tape.Reel"]
