"""A trained model in Python: its options, its picture, its file, and writing with it."""

from __future__ import annotations

import inspect
import json
import shutil
import typing
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import TINY, Acting, tiny_config

from bevia_fast import GenerateConfig, Run, TrainConfig, generate, resume, train
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.naming import on_the_command_line
from bevia_fast.runs.modelfile import load_trained

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return train(tiny_config(folder))


def test_the_options_of_a_run(run: Run, folder: Path) -> None:
    config = run.config
    assert config.model == run.model.config
    assert config.model.vocab_size == len(run.tokenizer)
    wanted = tiny_config(folder)
    different = [each.name for each in fields(config) if getattr(config, each.name) != getattr(wanted, each.name)]
    assert different == ["model"]
    assert Run.load(run.folder, "numpy").config == config


def test_a_run_that_ended_was_not_interrupted(run: Run) -> None:
    for each in (run, Run.load(run.folder, "numpy")):
        assert (each.step, each.interrupted) == (10, 0)
    assert Run(run.folder, run.model, run.tokenizer).step == 0


def test_options_of_another_version(run: Run, tmp_path: Path) -> None:
    """A run of an older version lacks options, one of a newer version has more."""
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    found = json.loads((copy / "options.json").read_text())
    del found["keep"], found["film"], found["model"]["tie"]
    found["invented"], found["model"]["invented"] = 1, 2
    (copy / "options.json").write_text(json.dumps(found))
    assert Run.load(copy, "numpy").config == run.config


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"5", b"\xff", b'{"model": 5}', b'{"model": {"ctx": 0}}', b'{"model": {}, "steps": "5"}',
     b"[" * 100_000],
)  # fmt: skip
def test_damaged_options(run: Run, tmp_path: Path, content: bytes) -> None:
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    (copy / "options.json").write_bytes(content)
    opened = Run.load(copy, "numpy")
    with pytest.raises(CheckpointError, match=r"options\.json does not describe a run: ") as caught:
        _ = opened.config
    assert "\n" not in str(caught.value)
    (copy / "options.json").unlink()
    with pytest.raises(CheckpointError, match=r"options\.json"):
        _ = opened.config


def test_the_picture_of_a_run(run: Run, tmp_path: Path) -> None:
    picture = run.plot()
    assert picture._repr_png_().startswith(b"\x89PNG")  # what a notebook shows
    picture.savefig(tmp_path / "loss.svg")
    assert b"<svg" in (tmp_path / "loss.svg").read_bytes()
    [axes] = picture.axes
    assert axes.get_ylabel().startswith("loss")
    assert len(axes.lines[0].get_xdata()) == 10  # type: ignore[arg-type]


def test_a_saved_model_is_the_same(run: Run, tmp_path: Path) -> None:
    for place, path in ((tmp_path, tmp_path / "model.safetensors"), (str(tmp_path / "m.st"), tmp_path / "m.st")):
        assert run.save(place) == path
        again = Run.load(path, "numpy")
        assert again.model.parameters.flat.tobytes() == run.model.parameters.flat.tobytes()
        assert (again.tokenizer.alphabet, again.step, again.folder) == (run.tokenizer.alphabet, 10, tmp_path)
        assert generate(again, length=30) == generate(run, length=30)
    assert load_trained(run.folder)[2] == load_trained(tmp_path)[2] == 10
    with pytest.raises(CheckpointError):
        run.save(tmp_path / "nowhere" / "m.safetensors")
    with pytest.raises(CheckpointError, match="NUL"):
        run.save("x\0y")
    assert not (tmp_path / "nowhere").exists()


def test_the_step_of_a_run(tmp_path: Path) -> None:
    class Ending(Exception):
        pass

    def end() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    run = train(tiny_config(tmp_path), Acting(4, end))
    assert (run.step, bool(run.interrupted)) == (4, True)
    assert "4, interrupted" in run._repr_html_()
    assert train(resume(run.folder, steps=12)).step == 12
    assert Run.load(run.folder, "numpy").step == 12


def test_resume_refuses_unknown_options(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^There is no option 'stepz'\.$"):
        resume(run.folder, stepz=5)


# ------------------------------------------------------------------------------------------------------------- writing


def test_generate_has_the_options_of_the_command() -> None:
    """With their defaults and types."""
    found = inspect.signature(generate).parameters
    hints, wanted = typing.get_type_hints(generate), typing.get_type_hints(GenerateConfig)
    assert list(found) == [each.name for each in fields(GenerateConfig)]
    for each in fields(GenerateConfig):
        if each.name != "run":
            assert found[each.name].default == each.default is not MISSING
            assert hints[each.name] == wanted[each.name]
        assert (found[each.name].kind is inspect.Parameter.KEYWORD_ONLY) == (each.name not in ("run", "prompt"))


def test_generate_passes_each_option_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("bevia_fast.runs.trained.stream", lambda model, tokenizer, config: given.append(config) or "")
    options: dict[str, Any] = {
        "length": 3, "temperature": 0.5, "top_k": 2, "top_p": 0.9, "seed": 5, "backend": "numpy", "threads": 1,
        "checkpoint": "last",
    }  # fmt: skip
    assert generate(run, "the", **options) == "the"
    assert given == [GenerateConfig(run="", prompt="the", **options)]
    assert set(options) == {each.name for each in fields(GenerateConfig)} - {"run", "prompt"}


@pytest.mark.parametrize("wrong", [5, None, TINY, ["run"]])
def test_what_generate_takes(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^run is .*; it must be a Run, or the path of a run folder\.$"):
        generate(wrong)


def test_a_prompt_is_text(run: Run) -> None:
    for wrong in (5, b"the", None):
        with pytest.raises(ConfigError, match=r"^prompt is .*; it must be text\.$"):
            generate(run, wrong)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(run: Run) -> None:
    config = TrainConfig(steps=np.int64(5), lr=np.float64(0.25), min_lr=np.float32(0.125), seed=np.uint8(3))  # type: ignore[arg-type]
    assert config == TrainConfig(steps=5, lr=0.25, min_lr=0.125, seed=3)
    assert all(type(getattr(config, name)) in (int, float) for name in ("steps", "lr", "min_lr", "seed"))
    json.dumps(config.lr)
    assert TrainConfig(lr=1).lr == 1
    for wrong in (np.bool_(True), np.float64(5.0), True):
        with pytest.raises(ConfigError, match=r"^steps is "):
            TrainConfig(steps=wrong)  # type: ignore[arg-type]
    assert generate(run, length=np.int64(3)) == generate(run, length=3)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- what is shown


def test_objects_say_what_they_are(run: Run) -> None:
    count = f"{run.model.parameters.count:,}"
    assert repr(run.model) == (
        f"<GPT of {count} parameters on numpy: ctx 8, dim 8, layers 2, heads 2, "
        f"vocabulary {len(run.tokenizer)}, float32>"
    )
    assert repr(run) == f"<Run {str(run.folder)!r} after 10 steps: {run.model!r}>"
    assert repr(run.model.parameters) == f"<Parameters: {count} float32 numbers in {len(run.model.parameters)} tensors>"
    assert repr(run.tokenizer) == rf"<Tokenizer of {len(run.tokenizer)} characters: \n ,.acdeghlmnost>"


def test_notebooks_get_tables(run: Run, tmp_path: Path) -> None:
    for shown in (run, run.model, run.model.parameters, run.tokenizer):
        html = shown._repr_html_()
        assert html.startswith(f"<table><caption>{type(shown).__name__}</caption><tr>")
        assert html.endswith("</table>")
        assert html.count("<tr>") == html.count("</tr>") > 1
    html = run._repr_html_()
    assert f"{run.history[-1]['val_loss']:.4f} nats per character" in html
    assert f"{run.history[-1]['loss']:.4f} nats per character" in html
    run.save(tmp_path)
    assert "nats" not in Run.load(tmp_path, "numpy")._repr_html_()  # a model file without its run
    parameters = run.model.parameters._repr_html_()
    for name, tensor in run.model.parameters.items():
        assert name in parameters
        assert " x ".join(map(str, tensor.shape)) in parameters


def test_nothing_that_is_shown_is_markup(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("<b>bold</b> & \"more\"\n" * 30)
    run = train(tiny_config(tmp_path, "<i>run"))
    for shown in (run, run.tokenizer):
        assert "<b>" not in shown._repr_html_()
        assert "<i>" not in shown._repr_html_()
        assert "&lt;" in shown._repr_html_()
    assert "\x1b" not in repr(type(run.tokenizer)("\x1bab"))


def test_the_step_of_a_damaged_file_is_no_step(run: Run, tmp_path: Path) -> None:
    from bevia_fast.runs.modelfile import save_model

    for wrong in (-1, True, 1.5, "3", None, 1 << 60):
        save_model(tmp_path / "m", run.model.parameters, run.tokenizer, wrong)  # type: ignore[arg-type]
        with pytest.raises(CheckpointError):
            Run.load(tmp_path / "m", "numpy")


def test_errors_of_the_options_are_those_of_the_reader(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^top_p is 2; "):
        generate(run, top_p=2)
    with on_the_command_line(), pytest.raises(ConfigError, match=r"^--top-p is 2; "):
        generate(run, top_p=2)
