"""`--config FILE`: options from TOML or from a run's options.json, with the command line's options over them."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import tiny_config

from bevia_fast import train
from bevia_fast.commands.arguments import PlanCommand, parse
from bevia_fast.commands.fields import command_options
from bevia_fast.config import ModelConfig, TrainConfig, preset
from bevia_fast.errors import UserError

WHOLE = """
preset = "seed"
data = ["a.txt", "b.txt"]
steps = 5000
min-lr = 1e-5
grad_clip = 2
recompute = true
on_nan = "skip"

[model]
heads = 2
dropout = 0.1
"""


def refused(line: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        parse(line)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_toml_with_options_over_it() -> None:
    Path("my run.toml").write_text(WHOLE)
    wanted = preset("tiny", data=("a.txt", "b.txt"), steps=5000, min_lr=1e-5, grad_clip=2.0, recompute=True,
                    on_nan="skip", heads=2, dropout=0.1)  # fmt: skip
    found = parse(["train", "--config", "my run.toml"])
    assert found == wanted
    assert type(found.grad_clip) is float  # options.json and checkpoints then say 2.0, as without a file
    line = ["--config=my run.toml", "--steps", "7", "--no-recompute", "--heads", "4", "c.txt"]
    changed = replace(wanted, steps=7, recompute=False, model=replace(wanted.model, heads=4), data=("c.txt",))
    assert parse(["train", *line]) == changed
    plan = parse(["plan", *line])
    assert isinstance(plan, PlanCommand)
    assert plan.config == changed


def test_sizes_need_no_table_and_one_text_no_list() -> None:
    Path("a.toml").write_text('\ufeffdim = 96\ndata = "größe.txt"\n', "utf-8")
    assert parse(["train", "--config", "a.toml"]) == TrainConfig(data=("größe.txt",), model=ModelConfig(dim=96))
    Path("empty.TOML").write_text("")
    assert parse(["train", "--config", "empty.TOML"]) == TrainConfig()


def test_every_option_can_be_in_the_file(tmp_path: Path) -> None:
    """Write each option with a value that is not its default, and read it back."""
    values = {"int": 8, "float": 0.25, "bool": True, "str": "x"}
    for name, option in command_options(TrainConfig).items():
        default = next(vars(part).get(option.field) for part in (TrainConfig(), ModelConfig())
                       if option.field in vars(part))  # fmt: skip
        value: Any = values[option.kind.__name__]
        if name == "--resume":
            continue
        value = option.choices[-1] if option.choices else not default if option.kind is bool else value
        if name in ("--encoding", "--min-lr", "--ctx", "--ctx-schedule"):
            value = {"--encoding": "cp1252", "--min-lr": 1e-6, "--ctx": 7, "--ctx-schedule": "8:5,64"}[name]
        Path("one.toml").write_text(f"{name[2:]} = {json.dumps(value)}")
        config = parse(["train", "--config", "one.toml"])
        found = getattr(config, option.field, getattr(config.model, option.field, None))
        assert found == ((value,) if option.many else value), name
        assert found != default, name


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_run_is_repeated_from_its_config(tmp_path: Path, named: str) -> None:
    """In another folder, with the same bits."""
    config = tiny_config(tmp_path, steps=3, eval_every=2)
    first = train(config)
    path = first.folder if named == "folder" else first.folder / "options.json"
    found = parse(["train", "--config", str(path), "--out", "again"])
    assert found == replace(config, out="again")
    second = train(found)
    assert (second.model.parameters.flat == first.model.parameters.flat).all()
    without = parse(["train", "--config", str(path)])
    assert (without.out, without.resume, without.model.vocab_size) == ("", "", 0)
    assert parse(["train", "--config", str(path), "--steps", "9"]).steps == 9


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("stepz = 5", "a.toml has an unknown option stepz (did you mean steps?)."),
        ("block_size = 5", "a.toml has an unknown option block_size; that is ctx here."),
        ("max_iters = 5", "that is steps here."),
        ("weight-dekay = 5", "did you mean weight-decay?"),
        ("device = 'cuda'", "a.toml has an unknown option device."),
        ("[model]\nsteps = 5", "a.toml has an unknown option model.steps."),
        ("[schedule]\nlr = 5", "a.toml has an unknown option schedule (did you mean ctx-schedule?)."),
        ("[optimizer]\nlr = 5", "a.toml: optimizer is {'lr': 5}; it must be one of"),
        ("steps = '5'", "a.toml: steps is '5'; it must be an integer."),
        ("steps = 5.0", "a.toml: steps is 5.0; it must be an integer."),
        ("steps = true", "a.toml: steps is True; it must be an integer."),
        ("steps = 1979-05-27", "it must be an integer."),
        ("lr = 'high'", "a.toml: lr is 'high'; it must be a number."),
        ("tie = 1", "a.toml: tie is 1; it must be true or false."),
        ("out = 3", "a.toml: out is 3; it must be a string."),
        ("data = [1]", "a.toml: data is [1]; it must be a string or a list of strings."),
        ("activation = 'tanh'", "a.toml: activation is 'tanh'; it must be one of 'gelu', 'gelu_erf', 'relu'."),
        ("activation = ['gelu']", "it must be one of"),
        ("preset = 'huge'", "a.toml: There is no preset 'huge'; there are tiny (ctx 64"),
        ("preset = 1", "a.toml: preset is 1; it must be a string."),
        ("model = 5", "a.toml: model is 5; it must be a table of sizes."),
        ("steps = 0", "a.toml: --steps is 0; it must be from 1"),
        ("dim = 10\nheads = 3", "a.toml: --dim 10 is not divisible by --heads 3."),
        ("min_lr = 1e-5\nmin-lr = 1e-5", "a.toml has two values of min_lr."),
        ("dim = 64\n[model]\ndim = 64", "a.toml has two values of dim."),
        ("lr = nan", "--lr is nan"),
        ("steps", "a.toml is not TOML: "),
        ("steps = 5\nsteps = 6", "a.toml is not TOML: "),
        ("a = " + "[" * 5000, "a.toml is not TOML: "),
        ("vocab_size = 5", "unknown option vocab_size"),
        ("config_file = 'b.toml'", "unknown option config_file"),
        ("resume = 'runs/1'", "a.toml has resume, which a file cannot have: name the run with --resume."),
    ],
)
def test_errors_name_the_file_and_what_would_be_right(content: str, words: str) -> None:
    Path("a.toml").write_text(content)
    assert words in refused(["train", "--config", "a.toml"])


def test_options_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"steps = 7\n")))
    assert parse(["train", "--config", "-"]) == TrainConfig(steps=7)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"stepz = 7\n")))
    assert refused(["train", "--config", "-"]).startswith("standard input has an unknown option stepz")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    Path("latin.toml").write_bytes(b"data = '\xe9.txt'")
    Path("big.toml").write_bytes(b"#" * (1 << 20) + b"\n#")
    Path("list.json").write_text("[]")
    Path("broken.json").write_text("{")
    Path("twice.json").write_text('{"steps": 1, "steps": 3}')
    Path("deep.json").write_text("[" * 100_000)
    Path("recipe.yaml").write_text("steps: 5")
    Path("folder").mkdir()
    os.mkfifo("pipe.toml")
    for name, words in (
        ("twice.json", "twice.json is not JSON: 'steps' is there twice."),
        ("none.toml", "Cannot read none.toml: No such file or directory."),
        ("folder", f"Cannot read {Path('folder/options.json')}: No such file or directory."),
        ("latin.toml", "latin.toml is not UTF-8: byte 8 is 0xe9."),
        ("big.toml", "big.toml is larger than any file of options."),
        ("list.json", "list.json is not an object with options."),
        ("broken.json", "broken.json is not JSON: "),
        ("deep.json", "deep.json is not JSON: "),
        ("recipe.yaml", "recipe.yaml has no options: --config takes a .toml file, or the options.json of a run."),
        ("pipe.toml", "pipe.toml is not a file."),
        ("a\0.toml", "cannot contain a NUL character"),
    ):
        assert words in refused(["train", f"--config={name}"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--config a.toml --preset tiny", "--preset cannot be combined with --config; a.toml"),
        ("--config a.toml --resume runs/1", "--config cannot be combined with --resume; runs/1"),
        ("--config", "--config needs a value"),
        ("--config=", "--config needs a value"),
    ],
)
def test_one_thing_to_start_from(line: str, words: str) -> None:
    Path("a.toml").write_text("")
    assert words in refused(["train", *line.split()])


def test_the_file_of_an_older_run(tmp_path: Path) -> None:
    """It lacks options that were added later; they keep their defaults."""
    stored = {"format_version": 1, **asdict(TrainConfig(steps=9)), "facts": {"text": "..."}}
    del stored["recompute"], stored["model"]["tie"]
    Path("options.json").write_text(json.dumps(stored))
    assert parse(["train", "--config", "options.json"]) == TrainConfig(steps=9)


NAMES = st.sampled_from([*(name[2:] for name in command_options(TrainConfig)), "preset", "model", "facts", "x"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(content=st.one_of(
    st.dictionaries(NAMES, ANYTHING, max_size=3).map(lambda found: json.dumps(found).encode()),
    ANYTHING.map(lambda found: json.dumps(found).encode()), st.binary(max_size=60),
), ending=st.sampled_from([".json", ".toml"]))  # fmt: skip
def test_any_file_is_read_or_refused_in_one_sentence(content: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"options{ending}"
        path.write_bytes(content)
        try:
            config, sentence = parse(["train", "--config", str(path)]), ""
        except UserError as error:
            config, sentence = TrainConfig(), str(error)
        assert isinstance(config, TrainConfig)
        assert "\n" not in sentence
        assert len(sentence) < 1000
