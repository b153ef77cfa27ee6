"""What the chapters say about the lab is what its results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.lab.answers import best_rate, losses, mean
from bevia_fast.lab.experiments import EXPERIMENTS
from bevia_fast.lab.runner import Asked
from bevia_fast.playbook import measured
from bevia_fast.playbook.chapters import Chapter, folder, read_chapters
from bevia_fast.playbook.measured import MEASURED, all_differences, answer, renewed, results, said, table, take_over

CHAPTERS = read_chapters()


def test_chapters_say_what_was_measured() -> None:
    quoted = [(name, text) for chapter in CHAPTERS for name, text in MEASURED.findall(chapter.text)]
    assert len(quoted) >= 8
    for name, text in quoted:
        assert text == said(results()[name]), name
    for chapter in CHAPTERS:
        assert renewed(chapter.text, results()) == chapter.text
        assert chapter.text.count("<!-- lab:") == len(MEASURED.findall(chapter.text)), "a marker without its sentence"
    assert table(results()) in CHAPTERS[-1].text


@pytest.mark.parametrize("name", list(results()))
def test_results_are_those_of_the_experiment_and_of_whole_seeds(name: str) -> None:
    found, experiment = results()[name], EXPERIMENTS[name]
    assert found["question"] == experiment.question
    assert found["prediction"] == experiment.prediction
    assert found["arms"] == [arm.name for arm in experiment.arms]
    asked = Asked(name, experiment, len(found["seeds"]), 0, 0.0)
    assert found["rates"] == asked.rates
    assert found["steps"] == experiment.base.steps
    assert len(found["seeds"]) >= 3
    wanted = [(arm.name, rate, seed) for arm, rate, seed in asked.cells()]
    assert [(cell["arm"], cell["rate"], cell["seed"]) for cell in found["cells"]] == wanted
    assert re.search(rf"bevia-fast lab {name} ", found["facts"]["command"])
    assert found["facts"].keys() >= {"command", "text", "kernels", "date"}


def layers(name: str, arm: str, measure: str) -> list[float]:
    """A measure of each layer at the best rate of an arm, in the mean over the seeds."""
    cells = results()[name]["cells"]
    chosen = [c[measure] for c in cells if (c["arm"], c["rate"]) == (arm, best_rate(cells, arm))]
    return [mean(values) for values in zip(*chosen, strict=True)]


def losses_at(name: str, arm: str) -> list[float]:
    """The loss at each rate, in the mean over the seeds."""
    cells = results()[name]["cells"]
    return [mean(list(losses(cells, arm, rate).values())) for rate in results()[name]["rates"]]


def test_numbers_that_the_chapters_name_beside_the_sentences() -> None:
    assert [round(x) for x in layers("scale-large", "without", "attended")] == [6, 5]
    assert [round(x, 1) for x in layers("scale-large", "with the scale", "attended")] == [10.5, 15.4]
    first, *_, last = layers("residual", "without", "gradient_last")
    assert 1e-7 < first / last < 1e-5
    assert min(losses_at("residual", "without")) > 3.2
    assert max(losses_at("norm", "pre-norm")) < 2.5
    low, *higher = losses_at("norm", "post-norm")
    assert low < 2.4 < 3.1 < min(higher)
    deep = results()["norm-deep"]["cells"]
    pre, post = (losses(deep, arm, best_rate(deep, arm)) for arm in ("pre-norm", "post-norm"))
    assert [round(post[seed] - pre[seed], 1) for seed in pre] == [0.5, 0.9, 0.2]
    pairs = zip(losses_at("bias-correction", "with correction"), losses_at("bias-correction", "without"), strict=True)
    assert [round(without - corrected, 1) for corrected, without in pairs] == [0.0, 0.2, 0.2]
    assert round(losses_at("decay", "cosine decay")[0] - losses_at("decay", "constant")[0], 2) == 0.05
    last: dict[str, list[float]] = {"no dropout": [], "dropout 0.2": []}
    for cell in results()["dropout"]["cells"]:
        if cell["rate"] == 0.003:
            last[cell["arm"]].append(cell["train_loss"])
    assert [round(mean(values), 1) for values in last.values()] == [1.6, 2.2]
    assert [round(losses_at("dropout", arm)[1], 1) for arm in last] == [2.8, 2.8]
    at_most = [losses_at("heads", arm)[2] for arm in results()["heads"]["arms"]]
    assert at_most == sorted(at_most, reverse=True)
    cells = results()["warmup"]["cells"]
    assert [best_rate(cells, arm) for arm in results()["warmup"]["arms"]] == [0.003, 0.001]
    assert round(losses_at("warmup", "none")[0] - losses_at("warmup", "40 steps of warm-up")[0], 2) == 0.01


def without_it(text: str) -> str:
    """The section of a chapter about what goes wrong without its subject."""
    return text.partition("\n## Without it\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("chapter", [chapter for chapter in CHAPTERS if without_it(chapter.text)], ids=lambda c: c.name)
def test_what_goes_wrong_without_it_is_shown(chapter: Chapter) -> None:
    """By an experiment that was run, or by an example that runs; nothing is only claimed."""
    section = without_it(chapter.text)
    assert "```pycon" in section or MEASURED.search(section), chapter.name


def test_every_chapter_says_what_goes_wrong_without_it() -> None:
    assert [chapter.name for chapter in CHAPTERS if not without_it(chapter.text)] == ["index", "lab"]


def test_every_claim_about_training_cites_an_experiment_or_an_example() -> None:
    """A paragraph that says what a model without something learns stands in a section that shows it."""
    claims = re.compile(r"[Ww]ithout .*\b(learns?|trains?|diverges?|loss)\b")
    for chapter in CHAPTERS:
        for section in re.split(r"^## ", chapter.text, flags=re.MULTILINE)[1:]:
            prose = re.sub(r"^(```|<details).*?^(```|</details>)$|^> .*?$", "", section, flags=re.MULTILINE | re.DOTALL)
            said = [sentence for part in prose.split("\n\n") for sentence in part.replace("\n", " ").split(". ")]
            if any(map(claims.search, said)) and chapter.name not in ("index", "lab"):
                assert "```pycon" in section or MEASURED.search(section), (chapter.name, section[:40])


def test_every_result_is_cited_where_it_belongs() -> None:
    cited = {name for chapter in CHAPTERS for name, _ in MEASURED.findall(chapter.text)}
    assert results().keys() - cited == set()


def test_a_changed_result_changes_the_text() -> None:
    [name, *_] = results()
    found = json.loads(json.dumps(results()))
    for cell in found[name]["cells"]:
        if cell["arm"] == found[name]["arms"][0]:
            cell["val_loss"] += 0.5
    assert answer(found[name]) != answer(results()[name])
    assert renewed(CHAPTERS[-1].text, found) != CHAPTERS[-1].text


def test_the_picture_shows_each_arm() -> None:
    data = all_differences()
    assert len(data["arm"]) == sum(len(found["arms"]) - 1 for found in results().values())
    assert len(set(data["arm"])) == len(data["arm"])


def test_results_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into another folder: stored results lose their curves, and a chapter gets its sentence."""
    [name, *_] = results()
    found: Any = results()[name]
    for cell in found["cells"]:
        cell["curve"] = [[1, cell.pop("train_loss"), 3.0]]
    (tmp_path / "lab" / name).mkdir(parents=True)
    (tmp_path / "lab" / name / "result.json").write_text(json.dumps(found))
    book = tmp_path / "book"
    (book / "lab").mkdir(parents=True)
    (book / "index.md").write_text(f"# Title\n\n<!-- lab: {name} -->\n> Nothing yet.\n")
    (book / "lab.md").write_text("# Lab\n")
    for module in ("measured", "chapters"):
        monkeypatch.setattr(f"bevia_fast.playbook.{module}.folder", lambda: book)
    take_over(tmp_path / "lab")
    assert json.loads((book / "lab" / f"{name}.json").read_text()) == json.loads(
        (folder() / "lab" / f"{name}.json").read_text()
    )
    assert measured.said(results()[name]) in (book / "index.md").read_text()
