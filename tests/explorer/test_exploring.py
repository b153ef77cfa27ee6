"""From a run to a page: which texts, which steps, what is left out and said, and how large a page may be."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import small_run
from small_runs import TEXT, tiny_config

from bevia_fast import Run, explore, train
from bevia_fast.errors import CheckpointError, ConfigError, DataError
from bevia_fast.explorer import exploring
from bevia_fast.explorer.exploring import ROUNDED, make_page
from bevia_fast.explorer.prompts import usual
from bevia_fast.explorer.sources import ANCHORS, located
from bevia_fast.explorer.tracing import trace
from bevia_fast.kernels import get_backend
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.film import frame_path

pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_config(tmp_path_factory.mktemp("explored"), film=4, model=replace(tiny_model(), ctx=16)))


def tiny_model() -> Any:
    from small_runs import TINY

    return TINY


def header(html: str) -> Any:
    """Return the header of a page."""
    [text] = re.findall(r'<script type="application/json" id="header">(.*?)</script>', html, re.DOTALL)
    return json.loads(text)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))


# -------------------------------------------------------------------------------------------------------------- prompts


def test_the_usual_prompts_are_pieces_of_the_validation_text(run: Run) -> None:
    validation = TEXT[int(len(TEXT) * 0.9) :]
    found, note = usual(run)
    assert note == ""
    assert len(found) == 3
    for prompt in found:
        text = run.tokenizer.decode(prompt.tokens)
        match = re.fullmatch(r"validation text, characters ([\d,]+) to ([\d,]+)", prompt.origin)
        assert match
        first, last = (int(number.replace(",", "")) for number in match.groups())
        assert len(text) == 16 == last - first + 1
        assert validation[first - 1 : last] == text


def test_a_piece_is_of_words(tmp_path: Path) -> None:
    """Of each third, the one with the most letters, from the beginning of a word."""
    table = "| 1 | 22 | 333 | 4 |\n" * 400
    text = table + "and here it says what all of these numbers mean to us\n" + table
    config = tiny_config(tmp_path, steps=1, model=replace(tiny_model(), ctx=64))
    Path(config.data[0]).write_text(text * 10)
    found, _ = usual(train(config))
    words = "and here it says what all of these numbers mean"
    assert any(words in Run.load(config.out, "numpy").tokenizer.decode(prompt.tokens) for prompt in found)


def test_a_text_that_is_hardly_long_enough(tmp_path: Path) -> None:
    """Two characters for validation are fewer than the three pieces."""
    config = tiny_config(tmp_path, steps=1, model=replace(tiny_model(), ctx=1))
    Path(config.data[0]).write_text("ab" * 10)
    found, note = usual(train(config))
    assert note == ""
    assert [prompt.origin for prompt in found] == [
        f"validation text, characters {place} to {place}" for place in (1, 2)
    ]
    assert len(header(explore(config.out).html)["prompts"]) == 2


def test_pieces_differ_even_if_the_text_repeats_itself(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, steps=1, model=replace(tiny_model(), ctx=32))
    Path(config.data[0]).write_text("all of these words are here again and again\n" * 1000)
    run = train(config)
    assert len({run.tokenizer.decode(prompt.tokens) for prompt in usual(run)[0]}) == 3


@pytest.mark.parametrize("change", ["moved", "changed", "piped", "without checkpoints", "without options"])
def test_the_text_is_not_at_hand(run: Run, copy: Path, change: str, tmp_path: Path) -> None:
    """Then the model writes the prompts itself, and the page says why."""
    config = json.loads((copy / "options.json").read_text())
    if change == "moved":
        config["data"] = [str(tmp_path / "nowhere.txt")]
    elif change == "changed":
        (tmp_path / "text.txt").write_text(TEXT + "and so on\n")
        config["data"] = [str(tmp_path / "text.txt")]
    elif change == "piped":
        config["data"] = ["-"]
    (copy / "options.json").write_text(json.dumps(config))
    if change == "without checkpoints":
        shutil.rmtree(copy / "checkpoints")
    if change == "without options":
        (copy / "options.json").unlink()
    page = explore(copy)
    about = header(page.html)
    assert [prompt["origin"] for prompt in about["prompts"]] == [
        f"written by the model, with the seed {seed}" for seed in (1, 2, 3)
    ]
    [note] = about["notes"]
    assert note.startswith("The prompts are the model's own writing, because the text of the run is not at hand: ")
    assert note.endswith(".")
    assert not note.endswith("..")
    assert page.notes == [note]


def test_prompts_that_are_asked_for(run: Run) -> None:
    about = header(explore(run, ["the cat", "dog"]).html)
    texts = ["".join(chr(about["alphabet"][token]) for token in prompt["tokens"]) for prompt in about["prompts"]]
    assert texts == ["the cat", "dog"]
    assert {prompt["origin"] for prompt in about["prompts"]} == {"your prompt"}
    assert header(explore(run, "the cat").html)["prompts"] == about["prompts"][:1]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([""], "The prompt is empty; it needs at least one character."),
        (["the", ""], "Prompt 2 is empty; it needs at least one character."),
        (["the cat sat on the mat"], "The prompt has 22 characters; the model's context is 16."),
        (["the", "the é"], r"Prompt 2 contains 'é' \(character 5\), which the model does not know; .*"),
    ],
)
def test_prompts_that_cannot_be_shown(run: Run, prompts: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}$"):
        explore(run, prompts)


# ----------------------------------------------------------------------------------------------------------------- film


def test_the_film_in_a_page(run: Run) -> None:
    about = header(explore(run, ["the cat"]).html)
    assert [frame["step"] for frame in about["film"]] == [0, 1, 3, 10]
    history = {record["step"]: record for record in run.history}
    assert [frame["train_loss"] for frame in about["film"]] == [history[step]["loss"] for step in (0, 1, 3, 10)]
    assert [frame["validation_loss"] for frame in about["film"]] == [history[s]["val_loss"] for s in (0, 1, 3, 10)]
    shapes = {name: entry["shape"] for name, entry in about["tensors"].items() if name.startswith("film/3/")}
    V = len(run.tokenizer)
    assert shapes == {
        "film/3/0/weights": [2, 2, 7, 7], "film/3/0/lens.token": [6, 7], "film/3/0/lens.probability": [6, 7],
        "film/3/0/surprise": [6], "film/3/0/top.token": [7, 8], "film/3/0/top.probability": [7, 8],
        "film/3/embedding": [V, 2],
    }  # fmt: skip


def test_a_run_without_a_film(copy: Path) -> None:
    shutil.rmtree(copy / "film")
    page = explore(copy, ["the cat"])
    assert page.notes == ["This run has no film, so only its last step is shown; film=16 keeps one in training."]
    assert header(page.html)["film"] == []
    assert not [name for name in header(page.html)["tensors"] if name.startswith("film/")]


def test_a_frame_leads_to_itself(run: Run) -> None:
    """A step of the film is a model too: its page ends there."""
    about = header(explore(frame_path(run.folder, 3), ["the cat"]).html)
    assert about["step"] == 3
    assert [frame["step"] for frame in about["film"]] == [0, 1, 3]


def test_a_damaged_frame_is_named(copy: Path) -> None:
    path = frame_path(copy, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        explore(copy, ["the cat"])


def test_a_frame_of_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    other = train(tiny_config(tmp_path, "other", film=4))
    shutil.copy(frame_path(other.folder, 1), frame_path(copy, 1))
    with pytest.raises(CheckpointError, match="is of another model than"):
        explore(copy, ["the cat"])


# --------------------------------------------------------------------------------------------------------------- header


def test_the_run_is_named_as_commands_find_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Run.load(run.folder, "numpy")
    for place, name in (
        (run.folder.parent, run.folder.name), (run.folder.parents[1], "/".join(run.folder.parts[-2:])),
        (run.folder.parents[2], "/".join(run.folder.parts[-3:])), (run.folder, "/".join(run.folder.parts[-2:])),
        (Path("/"), "/".join(run.folder.resolve().parts[1:])),
    ):  # fmt: skip
        monkeypatch.chdir(place)
        assert header(make_page(loaded, ["the cat"], origin="elsewhere").html)["run"] == name
    assert header(make_page(loaded, ["the cat"], origin="elsewhere").html)["prompts"][0]["origin"] == "elsewhere"


def test_the_header(run: Run) -> None:
    page = make_page(Run.load(run.folder, "numpy"), ["the cat"], day=date(2026, 11, 28))
    about = header(page.html)
    assert about["config"] == {
        "vocab": len(run.tokenizer), "ctx": 16, "dim": 8, "layers": 2, "heads": 2, "hidden": 32, "norm": "pre",
        "activation": "gelu", "tie": True, "bias": True, "epsilon": 1e-5, "rotary": False, "windows": [0, 0],
        "scale": True, "residual": True,
    }  # fmt: skip
    assert (about["format"], about["made"], about["backend"], about["dtype"], about["step"]) == (
        1, "2026-11-28", "numpy", "float32", 10
    )  # fmt: skip
    assert about["program"].startswith("bevia-fast ")
    assert about["run"].endswith("/run")
    assert about["curve"]["steps"] == list(range(11))
    assert about["curve"]["train"] == [
        None if record["loss"] is None else round(record["loss"], 4) for record in run.history
    ]
    assert about["train_config"]["batch"] == 2
    assert page.size == len(page.html.encode())


def test_a_long_curve_keeps_what_was_evaluated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploring, "CURVE", 3)
    curve = header(explore(run, ["the"]).html)["curve"]
    assert curve["steps"] == [0, 4, 8, 10]
    assert all(value is not None for value in curve["validation"])


def test_a_model_file_alone(run: Run, tmp_path: Path) -> None:
    """Without its run there are no losses, no options, and no text."""
    path = run.save(tmp_path / "alone.safetensors")
    about = header(explore(path, ["the cat"]).html)
    assert about["curve"] == {"steps": [], "train": [], "validation": []}
    assert about["train_config"] == {}
    assert about["film"] == []
    assert explore(path).notes[0].startswith("The prompts are the model's own writing")


def test_every_source_is_one_line_of_its_function() -> None:
    found = located()
    assert found.keys() == ANCHORS.keys()
    root = Path(__file__).parents[2]
    for operation, source in found.items():
        lines = (root / str(source["file"])).read_text().splitlines()
        assert lines[int(str(source["line"])) - 1].strip() == source["snippet"], operation


def test_a_snippet_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANCHORS, "relu", ANCHORS["relu"]._replace(snippet="np.abs(x)"))
    with pytest.raises(ValueError, match=r"is on 0 lines of activation\.relu"):
        located()


# ----------------------------------------------------------------------------------------------------------------- size


def test_a_page_that_is_too_large(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    size, half = explore(run, ["the", "cat"]).size, explore(run, ["the", "cat"], half=True).size
    assert half < size
    monkeypatch.setattr(exploring, "LARGEST", size - 1)
    with pytest.raises(ConfigError) as error:
        explore(run, ["the", "cat"])
    text = str(error.value)
    assert re.match(r"The page would have [\d.]+ kB; at most [\d.]+ kB open quickly\. What helps: ", text)
    assert "half=True (it makes " in text
    assert "), fewer prompts, or the command line, which can serve a page of any size." in text
    explore(run, ["the", "cat"], half=True)
    monkeypatch.setattr(exploring, "LARGEST", 1000)
    with pytest.raises(ConfigError) as error:
        explore(run, ["the"], half=True)
    assert "half" not in str(error.value)
    assert "prompts" not in str(error.value)
    assert make_page(run, ["the"]).size > 1000


def test_half_says_so(run: Run) -> None:
    assert explore(run, ["the"], half=True).notes == ["The numbers are rounded to half precision (11 bits)."]


def test_a_model_in_bfloat16_says_so(run: Run) -> None:
    """And its page has the engine's numbers, which this rounding moves."""
    parameters = Parameters(replace(run.model.config, precision="bf16"))
    parameters.flat[...] = run.model.parameters.flat
    rounded = replace(run, model=GPT(parameters.config, get_backend("numpy"), parameters))
    assert explore(rounded, ["the"]).notes == [ROUNDED]
    exact, found = (trace(each.model, each.tokenizer.encode("the")).embedding for each in (run, rounded))
    assert np.array_equal(exact, found)  # no product has touched it
    exact, found = (each.model.logits(each.tokenizer.encode("the")[None]) for each in (run, rounded))
    assert 0 < abs(exact - found).max() < 0.05 * abs(exact).max()


# ------------------------------------------------------------------------------------------------------------- notebook


def test_a_notebook_shows_it_in_a_sandbox(run: Run) -> None:
    from html.parser import HTMLParser

    page = explore(run, ["the cat"])
    found: list[tuple[str, dict[str, str | None]]] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Parser().feed(page._repr_html_())
    [(tag, attributes)] = found
    assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
    assert attributes["srcdoc"] == page.html
    assert repr(page).startswith("<Explorer: a page of ")


def test_what_explore_does_not_take() -> None:
    with pytest.raises(ConfigError, match=r"^run is 5; it must be a Run, or the path of a run folder\.$"):
        explore(5)  # type: ignore[arg-type]


def test_save(run: Run, tmp_path: Path) -> None:
    page = explore(run, ["the cat"])
    assert page.save(tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").read_text("utf-8") == page.html
    with pytest.raises(CheckpointError, match="Cannot write"):
        page.save(tmp_path / "missing" / "page.html")


def test_one_token_and_one_character(tmp_path: Path) -> None:
    """The smallest model and the smallest alphabet."""
    small = small_run(tmp_path, "a", ctx=1, dim=1, heads=1, layers=1)
    about = header(make_page(small, ["a"]).html)
    assert about["alphabet"] == [97]
    assert np.prod(about["tensors"]["prompt/0/logits"]["shape"]) == 1


def test_a_page_names_the_optimizer_of_its_run(tmp_path: Path) -> None:
    named = {}
    for optimizer in ("adamw", "muon"):
        (tmp_path / optimizer).mkdir()
        run = train(tiny_config(tmp_path / optimizer, optimizer=optimizer, film=0))
        named[optimizer] = header(make_page(run).html)["train_config"]["optimizer"]
    assert named == {"adamw": "AdamW", "muon": "Muon, AdamW"}
