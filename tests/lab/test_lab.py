"""Experiments run, go on after an interruption, and report what came out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.errors import CheckpointError
from bevia_fast.kernels import get_backend
from bevia_fast.lab import runner
from bevia_fast.lab.answers import best_rate
from bevia_fast.lab.cells import Text, run_cell
from bevia_fast.lab.experiments import EXPERIMENTS, Arm, Experiment
from bevia_fast.lab.pages import write_pages
from bevia_fast.lab.reports import MEASURES, report, result, write_report
from bevia_fast.lab.runner import Asked, run_experiment
from bevia_fast.runs.modelfile import load_model

MODEL = ModelConfig(ctx=8, dim=8, layers=2, heads=2)
TINY = Experiment(
    "Does it matter?", "No.",
    (Arm("usual"), Arm("without", {"residual": False}), Arm("steady", train={"min_lr": "lr"})),
    TrainConfig(model=MODEL, batch=2, steps=12, warmup=3), rates=(1e-3, 1e-2),
)  # fmt: skip
NUMPY = get_backend("numpy")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("the cat sat on the mat, and the dog sat on the log.\n" * 60)
    return Text.read(TrainConfig(data=[str(path)]))


def asked(seeds: int = 2, experiment: Experiment = TINY, minutes: float = 0.0) -> Asked:
    return Asked("tiny", experiment, seeds, 0, minutes)


def without_times(cells: list[dict[str, Any]]) -> str:
    return json.dumps([{key: value for key, value in cell.items() if key != "seconds"} for cell in cells])


def test_a_cell_learns_and_is_measured(text: Text) -> None:
    cell = run_cell(TINY, TINY.arms[0], 1e-2, 1, text, NUMPY, steps=60)
    steps, training, validation = zip(*cell["curve"], strict=True)
    assert steps == tuple(range(6, 61, 6))
    assert training[-1] < training[0] - 0.2
    assert validation[-1] == pytest.approx(cell["val_loss"], rel=0.05)
    assert [len(cell[name]) for name in MEASURES] == [2] * 5
    assert all(1 <= spread <= 8 for spread in cell["attended"])
    assert all(-1 <= alike <= 1 for alike in cell["likeness"])


def test_equal_cells_have_equal_bits_and_seeds_differ(text: Text) -> None:
    one, again, other = (run_cell(TINY, TINY.arms[1], 1e-2, seed, text, NUMPY) for seed in (1, 1, 2))
    assert without_times([one]) == without_times([again])
    assert one["val_loss"] != other["val_loss"]


def test_a_run_that_diverges_is_recorded(text: Text) -> None:
    wild = Experiment("?", "!", (Arm("usual"),), TINY.base, rates=(1e30,))
    cell = run_cell(wild, wild.arms[0], 1e30, 1, text, NUMPY)
    assert cell["val_loss"] is None
    assert cell["diverged_at"] > 1


def test_an_interrupted_experiment_goes_on(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_experiment(asked(), tmp_path / "whole", text, NUMPY)

    def interrupt(number: int, count: int, cell: dict[str, Any]) -> None:
        assert count == 12
        if number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(asked(), tmp_path / "again", text, NUMPY, interrupt)
    done = sorted(path.name for path in (tmp_path / "again/cells").iterdir())
    assert len(done) == 6  # five cells and the stamp
    trained: list[int] = []
    monkeypatch.setattr(runner, "run_cell", lambda *a: trained.append(1) or run_cell(*a))
    assert without_times(run_experiment(asked(), tmp_path / "again", text, NUMPY)) == without_times(whole)
    assert len(trained) == 7


def test_a_damaged_cell_is_computed_again(text: Text, tmp_path: Path) -> None:
    whole = run_experiment(asked(1), tmp_path, text, NUMPY)
    for content in ("{", "[]", '{"arm": 1}'):
        (tmp_path / "cells/0-0.001-1.json").write_text(content)
        assert without_times(run_experiment(asked(1), tmp_path, text, NUMPY)) == without_times(whole)


def test_another_experiment_does_not_mix_with_this_one(text: Text, tmp_path: Path) -> None:
    run_experiment(asked(1), tmp_path, text, NUMPY)
    other = Experiment("?", "!", TINY.arms, TINY.base, rates=(1e-3,))
    with pytest.raises(CheckpointError, match="another experiment"):
        run_experiment(asked(1, other), tmp_path, text, NUMPY)
    assert len(run_experiment(asked(2), tmp_path, text, NUMPY)) == 12  # more seeds are the same experiment


def test_after_the_minutes_only_whole_seeds_count(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])

    def tick(number: int, count: int, cell: dict[str, Any]) -> None:
        now[0] = 10.0 * number

    cells = run_experiment(asked(3, minutes=1.3), tmp_path, text, NUMPY, tick)
    assert [cell["seed"] for cell in cells] == [1] * 6
    assert len(list((tmp_path / "cells").glob("*-*.json"))) == 8  # what was done beyond that is kept


def test_the_report_says_everything(text: Text, tmp_path: Path) -> None:
    cells = run_experiment(asked(), tmp_path, text, NUMPY)
    found = result(asked(), cells, {"command": "`bevia-fast lab tiny`"})
    paths = write_report(tmp_path, found)
    assert [path.name for path in paths] == ["report.md", "result.json", "curves.png", "curves.svg"]
    said = paths[0].read_text("utf-8")
    assert found["answer"] in said
    for part in ("Does it matter?", "No.", "usual", "without", "steady", "0.001", "0.01", "`bevia-fast lab tiny`"):
        assert part in said
    assert json.loads(paths[1].read_text())["cells"] == json.loads(json.dumps(cells))
    widths = [line.count("|") for line in said.splitlines() if line.startswith("|")]
    assert set(widths) <= {4, 5}
    assert report(found) == said


def test_pages_show_the_models_of_the_first_seed(text: Text, tmp_path: Path) -> None:
    """Also if the cells were trained before without keeping them; a second time, nothing is trained."""
    plain = run_experiment(asked(), tmp_path, text, NUMPY)
    with_pages = replace(asked(), pages=True)
    cells = run_experiment(with_pages, tmp_path, text, NUMPY)
    assert without_times(cells) == without_times(plain)
    models = sorted(tmp_path.glob("cells/*.safetensors"))
    assert len(models) == 6  # three arms, two rates, one seed
    stamps = [path.stat().st_mtime_ns for path in models]
    run_experiment(with_pages, tmp_path, text, NUMPY)
    assert [path.stat().st_mtime_ns for path in models] == stamps
    parameters = load_model(with_pages.model_path(tmp_path, TINY.arms[1], best_rate(cells, "without")))[0]
    assert not parameters.config.residual
    written, notes = write_pages(tmp_path, with_pages, text, cells)
    assert notes == []
    assert written == {name: f"page-{name}.html" for name in ("usual", "without", "steady")}
    assert load_model(tmp_path / "model-without")[0].flat.tobytes() == parameters.flat.tobytes()
    said = report({**result(asked(), cells, {}), "pages": written})
    assert "[without](page-without.html)" in said
    pages = {arm: (tmp_path / name).read_text("utf-8") for arm, name in written.items()}
    assert ['"residual":false' in page.replace(" ", "") for page in pages.values()] == [False, True, False]
    # the same pieces of the validation text for all
    tokens = {re.search(r'"prompts": ?(\[.*?\]\}?\])', page)[1] for page in pages.values()}  # type: ignore[index]
    assert len(tokens) == 1


def test_a_page_that_is_too_large_is_a_note(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pages = replace(asked(1), pages=True)
    cells = run_experiment(with_pages, tmp_path, text, NUMPY)
    monkeypatch.setattr("bevia_fast.lab.pages.LARGEST", 1000)
    written, notes = write_pages(tmp_path, with_pages, text, cells)
    assert written == {}
    assert len(notes) == 3
    assert notes[0].startswith("usual has no page: The page would have")
    assert "## Pages" not in report({**result(asked(1), cells, {}), "pages": written})


def test_arms_differ_in_what_they_say() -> None:
    """Every experiment can be configured; its arms differ, and names are unique."""
    for name, experiment in EXPERIMENTS.items():
        configs = [experiment.config(arm, 1e-3, 1) for arm in experiment.arms]
        assert len({str(config) for config in configs}) == len(configs) >= 2, name
        assert len({arm.name for arm in experiment.arms}) == len(configs)
        assert len(experiment.rates) == 3
        assert all(config.min_lr <= config.lr for config in configs)
    steady = EXPERIMENTS["decay"].config(EXPERIMENTS["decay"].arms[1], 3e-3, 1)
    assert steady.min_lr == steady.lr == 3e-3
    context = EXPERIMENTS["context"]
    configs = [context.config(arm, 1e-3, 1) for arm in context.arms]
    assert {config.batch * config.model.ctx for config in configs} == {512}


def test_an_arm_may_have_its_own_rate(text: Text, tmp_path: Path) -> None:
    """It is trained with that one alone, and its column says so."""
    arms = (Arm("usual"), Arm("slow", train={"lr": 2e-4}))
    own = asked(1, Experiment("?", "!", arms, TINY.base, rates=(1e-3, 1e-2)))
    assert own.rates == [2e-4, 1e-3, 1e-2]
    assert [(arm.name, rate) for arm, rate, _ in own.cells()] == [("slow", 2e-4), ("usual", 1e-3), ("usual", 1e-2)]
    config = own.experiment.config(arms[1], 2e-4, 1)
    assert (config.lr, config.min_lr) == (2e-4, 2e-5)
    found = result(own, run_experiment(own, tmp_path, text, NUMPY), {})
    table = [line for line in report(found).splitlines() if re.match(r"\| (0\.\d|1)", line)]
    assert [line.count(" - ") for line in table if not line.startswith("| 1 ")] == [1, 1, 1]
    assert write_report(tmp_path, found)


def test_arms_with_other_tokens_compare_in_bits_per_byte(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("der Bär läuft über die Straße.\n" * 90, "utf-8")
    arms = (Arm("characters"), Arm("bytes", train={"tokens": "bytes"}))
    experiment = Experiment("?", "!", arms, TINY.base, rates=(1e-2,), bits=True)
    text = Text.read(TrainConfig(data=[str(tmp_path / "text.txt")]), 0, experiment.tokens)
    assert experiment.tokens == ("chars", "bytes")
    assert (text.vocabulary, text.others["bytes"].vocabulary) == (len(set("der Bär läuft über die Straße.\n")), 256)
    nats = Experiment("?", "!", arms, TINY.base, rates=(1e-2,))
    for arm in arms:
        tokens = text.of(experiment.config(arm, 1e-2, 1))
        size = np.mean([len(tokens.tokenizer.token_bytes(token)) for token in tokens.validation[1:].tolist()])
        assert 1.0 <= size < 1.2
        found = [run_cell(each, arm, 1e-2, 1, text, NUMPY, steps=20) for each in (experiment, nats)]
        bits, loss = (cell["val_loss"] for cell in found)
        assert bits == pytest.approx(loss / np.log(2) / size, rel=1e-9)
        assert found[0]["curve"][0][1] == pytest.approx(found[1]["curve"][0][1] / np.log(2) / size, rel=1e-9)
    cells = run_experiment(asked(1, experiment), tmp_path / "out", text, NUMPY)
    about = result(asked(1, experiment), cells, {})
    assert "in bits per byte: *characters*" in about["answer"]
    assert "in bits per byte. The best rate" in report({**about, "facts": {}})
    assert "in nats per character." in report({key: value for key, value in about.items() if key != "unit"})
    one, other = asked(1, experiment).fingerprint(text), asked(1, experiment).fingerprint(Text.read(TrainConfig()))
    assert one != other


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog sat on the log.\n" * 200)
    arguments = ["lab", "scale", "--seeds", "1", "--steps", "10", "--data", str(tmp_path / "text.txt"),
                 "--out", str(tmp_path / "out"), "--backend", "numpy"]  # fmt: skip
    assert main([*arguments, "--pages"]) == 0
    assert (tmp_path / "out/page-without.html").stat().st_size > 100_000
    said = capsys.readouterr().out
    assert "6 of 6" in said
    assert "Answer: The validation loss after 10 steps" in said
    assert re.search(r"--seeds 1 --steps 10", (tmp_path / "out/report.md").read_text("utf-8"))
    assert main(["lab", "list"]) == 0
    assert "scale-large" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "There is no experiment 'nothing'"),
        (["scal"], "did you mean scale"),
        (["scale", "--seeds", "0"], "--seeds is 0"),
        (["scale", "--steps", "5"], "too few"),
        (["scale", "--minutes", "-1"], "--minutes"),
        (["scale", "--data", "short.txt"], "too short"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("abc " * 100)
    assert main(["lab", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "lab").exists()


def test_runs_of_the_lab_are_not_committed() -> None:
    assert "/lab/" in (Path(__file__).parents[2] / ".gitignore").read_text()
