"""Messages name options and commands as their reader writes them: in Python as arguments, in a shell as options."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import Acting, tiny_config

import bevia_fast
from bevia_fast import ModelConfig, TrainConfig, UserError, generate, resume, train
from bevia_fast.backends import open_backend
from bevia_fast.commands.arguments import parse
from bevia_fast.errors import ConfigError, DataError, StoppedRun
from bevia_fast.naming import command, on_the_command_line, option, resuming
from bevia_fast.planning.memory import refuse_training
from bevia_fast.runs.checkpoint import stored_config

pytestmark = pytest.mark.usefixtures("quick_runs")

PACKAGE = Path(bevia_fast.__file__).parent


@pytest.mark.parametrize(
    ("name", "value", "python", "shell"),
    [
        ("top_k", None, "top_k", "--top-k"),
        ("top_k", 5, "top_k=5", "--top-k 5"),
        ("out", "my run", "out='my run'", "--out 'my run'"),
        ("glob", ("*.md", "*.rst"), "glob=('*.md', '*.rst')", "--glob '*.md' '*.rst'"),
        ("recompute", True, "recompute=True", "--recompute"),
        ("bias", False, "bias=False", "--no-bias"),
    ],
)
def test_options(name: str, value: Any, python: str, shell: str) -> None:
    assert option(name, value) == python
    with on_the_command_line():
        assert option(name, value) == shell
    assert option(name, value) == python


@pytest.mark.skipif(shlex.quote("a b") != "'a b'", reason="another shell")
def test_commands_can_be_pasted() -> None:
    name = "it's a \"run\" of Müller"
    with on_the_command_line():
        assert shlex.split(command("generate", name, seed=2)) == ["bevia-fast", "generate", name, "--seed", "2"]
        assert shlex.split(resuming(name, recompute=True))[1:] == ["train", "--resume", name, "--recompute"]
    given: list[Any] = []
    names = {
        "generate": lambda *places, **options: given.append((places, options)),
        "train": given.append,
        "resume": lambda *places, **options: (places, options),
    }
    eval(command("generate", Path(name), seed=2), names)
    eval(resuming(name, out=Path("b")), names)
    assert given == [((name,), {"seed": 2}), ((name,), {"out": "b"})]


def test_an_error_in_a_command_does_not_change_how_python_is_answered() -> None:
    with pytest.raises(UserError, match="--ctx is 0"):
        parse(["train", "--ctx", "0"])
    with pytest.raises(UserError, match=r"^ctx is 0"):
        ModelConfig(ctx=0)


def requests(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Pairs of the option that a request is refused for, and the request."""
    run = train(tiny_config(folder, steps=4)).folder
    config = tiny_config(folder, "other")
    stored = stored_config(run)
    yield "out", lambda: train(tiny_config(folder))
    yield "out", lambda: train(replace(config, out=str(folder / "text.txt")))
    yield "out", lambda: train(replace(stored, out=str(folder / "elsewhere")))
    yield "ctx", lambda: train(replace(config, model=ModelConfig(ctx=100_000, dim=8, heads=1, layers=1)))
    yield "steps", lambda: train(resume(run, steps=2))
    yield "weight_decay", lambda: train(resume(run, weight_decay=0.5))
    yield "heads", lambda: train(replace(stored, model=replace(stored.model, heads=1)))
    yield "threads", lambda: open_backend("numba", 4000)
    yield "top_k", lambda: generate(run, top_k=-1)
    vast = ModelConfig(ctx=1 << 20, dim=1 << 13, heads=8, layers=64, vocab_size=100)
    yield "ignore_memory", lambda: refuse_training(TrainConfig(backend="numpy"), vast)
    (folder / "text.txt").write_text("something else entirely\n" * 30)
    yield "allow_changed_text", lambda: train(resume(run, steps=8))


def test_each_refusal_names_the_option_as_it_was_written(tmp_path: Path) -> None:
    for name, request in requests(tmp_path):
        with pytest.raises(UserError) as python:
            request()
        with on_the_command_line(), pytest.raises(UserError) as shell:
            request()
        assert re.search(rf"(?<![\w-]){name}\b", str(python.value)), python.value
        assert "--" not in str(python.value)
        assert f"--{name.replace('_', '-')}" in str(shell.value), shell.value


def test_the_command_in_a_message_runs(tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    train(tiny_config(folder, steps=4))
    with pytest.raises(UserError) as caught:
        train(tiny_config(folder))
    printed = str(caught.value).rpartition("resume it: ")[2]
    assert eval(printed, {"train": train, "resume": resume}).folder == folder / "run"


def test_a_stopped_run_and_its_notes_name_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bevia_fast.training.loop.not_finite", lambda loss, norm: "the loss is nan")
    with pytest.raises(StoppedRun) as caught:
        train(tiny_config(tmp_path))
    assert "A smaller lr in a new run may help" in str(caught.value)
    assert str(caught.value).endswith(f"train(resume({str(tmp_path / 'run')!r}, crosscheck_every=1))")
    monkeypatch.undo()
    monkeypatch.setattr("bevia_fast.training.loop.usual_evaluation", lambda *sizes: 1)
    listening = Acting()
    train(tiny_config(tmp_path, "second", eval_batches=0), listening)
    assert [note for note in listening.notes if note.endswith("; eval_batches changes this.")]


def test_how_a_text_is_read_is_named_by_arguments(tmp_path: Path) -> None:
    latin, folder = tmp_path / "latin.txt", tmp_path / "books"
    latin.write_bytes("Ce café-là était près de la forêt, à côté du théâtre. ".encode("cp1252") * 20)
    folder.mkdir()
    (folder / "a.md").write_text("a")
    for data, said in ((latin, "if that is so, add encoding='cp1252'."), (folder, "; glob=('*.md',) reads those.")):
        with pytest.raises(DataError) as caught:
            train(tiny_config(tmp_path, data=(str(data),)))
        assert str(caught.value).endswith(said)
    with pytest.raises(ConfigError, match=r"^encoding is 'klingon'; it must be"):
        train(tiny_config(tmp_path, encoding="klingon"))


def literal_options(path: Path) -> list[str]:
    """The options that are spelled out in the strings of a source, other than docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        and re.search(r"(?<![\w-])--[a-z]|bevia-fast [a-z]+ (--|\{|$)", node.value)
    ]  # fmt: skip


SHELL_ONLY = ("commands", "measuring", "kernels", "naming.py")


def test_no_message_spells_an_option_out() -> None:
    """Outside of `commands` and `measuring`, which only the command line uses, `option` and `command` do that."""
    sources = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in SHELL_ONLY]
    assert len(sources) > 30
    assert [found for path in sources for found in literal_options(path)] == []
