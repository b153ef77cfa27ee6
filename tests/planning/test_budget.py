"""How many steps fit into a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import Acting, result, tiny_config

from bevia_fast import TrainConfig, resume, train
from bevia_fast.commands.arguments import parse
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.sources import text_source
from bevia_fast.data.tokenfile import coded_text
from bevia_fast.errors import ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.instruments import Listener
from bevia_fast.model.gpt import GPT
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.budget import Pieces, evaluations, make_budget, samples, steps_that_fit, with_steps
from bevia_fast.planning.rehearsal import rehearse_evaluation
from bevia_fast.reporter import Reporter
from bevia_fast.runs.checkpoint import stored_config
from bevia_fast.training import opening, trial

MODEL = ModelConfig(ctx=8, dim=8, layers=3, heads=2, vocab_size=16)
pytestmark = pytest.mark.usefixtures("two_threads")


class Clockwork:
    """A forecast of 10 ms a step and 20 ms a batch of an evaluation."""

    def __init__(self, *sizes: Any) -> None:
        pass

    def seconds(self, step: Any) -> float:
        return 0.010

    def seconds_of(self, calls: Any) -> float:
        return 0.020


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "time_pieces", lambda *sizes: Pieces((0.010,), 0.020))
    monkeypatch.setattr("bevia_fast.planning.plan.StagedForecast", Clockwork)


def steps_of(seconds: float, every: int, characters: int = 1 + 2 * 8 * 5) -> int:
    """Return the steps that fit with evaluations of five batches of 2 x 8, which take 100 ms."""
    config = TrainConfig(minutes=seconds / 60, batch=2, eval_every=every, model=MODEL)
    return make_budget(config, MODEL, Clockwork(), characters).steps  # type: ignore[arg-type]


def test_the_most_steps_are_chosen_that_fit_with_their_evaluations() -> None:
    for seconds, every in ((1.0, 1000), (2.0, 10), (7.77, 25), (0.2101, 1000), (3.2, 1)):
        steps = steps_of(seconds, every)
        taken, more = (count * 0.010 + evaluations(count, every) * 0.1 for count in (steps, steps + 1))
        assert taken <= seconds < more + 1e-9
    assert steps_of(1.0, 1000) == 80
    assert steps_of(1.0, 1000, characters=1 + 2 * 8) == 96


def test_a_part_of_the_split_counts_as_such() -> None:
    config = TrainConfig(minutes=1.0, batch=2, eval_batches=3, model=MODEL)
    found = [make_budget(config, MODEL, Clockwork(), count).evaluation for count in (1000, 33)]  # type: ignore[arg-type]
    assert found == pytest.approx([0.06, 0.04])


@pytest.mark.parametrize(("steps", "every", "count"), [(10, 4, 4), (8, 4, 3), (1, 4, 2), (4, 1, 5)])
def test_the_evaluations_of_a_run(tmp_path: Path, quick_runs: None, steps: int, every: int, count: int) -> None:
    run = train(tiny_config(tmp_path, steps=steps, eval_every=every))
    assert sum(record["val_loss"] is not None for record in run.history) == count == evaluations(steps, every)


@pytest.mark.parametrize("seconds", [0.001, 0.2])
def test_a_time_too_short_for_a_step_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"^minutes is .*; a step of this model takes about 10\.0 ms, and an "
                       r"evaluation 100 ms, so that at least 0\.0035 are needed\.$"):  # fmt: skip
        steps_of(seconds, 100)


@pytest.mark.parametrize(("steps", "warmup", "found"), [(1000, 100, 100), (999, 100, 100), (200, 100, 20), (1, 100, 1),
                                                        (1000, 0, 0), (5, 2, 1)])  # fmt: skip
def test_the_warmup_takes_at_most_a_tenth(steps: int, warmup: int, found: int) -> None:
    config = with_steps(TrainConfig(minutes=5.0, warmup=warmup), steps)
    assert (config.steps, config.minutes, config.warmup) == (steps, 0.0, found)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_an_evaluation_makes_the_calls_that_are_rehearsed(norm: Any) -> None:
    model = replace(MODEL, norm=norm)
    listener: Any = Listener(get_backend("numpy"))
    tokens = Parameters.initial(model, 0)
    GPT(model, listener, tokens).loss([[1] * 8] * 2, [[2] * 8] * 2)  # type: ignore[arg-type]
    called = [operation for operation, _, _ in listener.called]
    rehearsed = rehearse_evaluation(model, 2)
    for operation in {*called, *(call.operation for call, _ in rehearsed)}:
        planned = sum(count for call, count in rehearsed if call.operation == operation)
        assert planned == called.count(operation), operation


@pytest.mark.usefixtures("quick_runs", "clockwork")
def test_a_run_has_the_steps_in_place_of_the_minutes(tmp_path: Path) -> None:
    """So it is repeated and resumed without a clock."""
    heard: list[float] = []

    class Watch(Acting):
        def budget(self, seconds: float) -> None:
            heard.append(seconds)

    changes: dict[str, Any] = {"steps": TrainConfig.steps, "minutes": 0.3 / 60, "warmup": 100}
    run = train(tiny_config(tmp_path, **changes), Watch(5, lambda: None))
    assert (run.config.minutes, run.config.steps) == (0.0, run.step)
    assert run.config.warmup == -(-run.step // 10)
    assert heard == [pytest.approx(0.3)]
    written = json.loads((run.folder / "options.json").read_text())
    assert written["facts"]["steps"].startswith(f"{run.step} in 300 ms: 10.0 ms each, and ")
    again = train(tiny_config(tmp_path, "again", steps=run.step, warmup=run.config.warmup))
    assert result(run.folder) == result(again.folder)
    assert stored_config(run.folder).minutes == 0.0
    with pytest.raises(ConfigError, match=r"^minutes is for a new run; .* has its number of steps, which steps"):
        resume(run.folder, minutes=3.0, steps=1250)


def test_steps_and_minutes_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^steps cannot be combined with minutes, from which the steps follow\.$"):
        TrainConfig(steps=10, minutes=1.0)
    file = tmp_path / "options.toml"
    file.write_text("steps = 7\n")
    assert parse(["train", "--config", str(file), "--minutes", "2"]).minutes == 2.0
    file.write_text("minutes = 7\n")
    config = parse(["train", "--config", str(file), "--steps", "1250"])
    assert (config.steps, config.minutes) == (1250, 0.0)
    for words, said in (
        (["train", "--minutes", "3", "--steps", "1250"], "--steps cannot be combined with --minutes"),
        (["plan", "--hours", "3", "--steps", "1250"], "--steps cannot be combined with --hours"),
        (["plan", "--hours", "3", "--minutes", "3"], "--hours cannot be combined with --minutes"),
        (["train", "--minutes", "-1"], "--minutes is -1.0; it must be a finite number, at least 0."),
        (["train", "--minutes", "nan"], "--minutes is nan; it must be a finite number, at least 0."),
        (["plan", "--hours", "inf"], "--hours is inf; it must be a finite number, at least 0."),
        (["train", "--hours", "3"], "--hours"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_samples_take_their_time() -> None:
    config = TrainConfig(minutes=1 / 60, batch=2, eval_every=1000, sample_every=20, model=MODEL)
    for each, steps in ((0.0, 80), (0.05, 50), (0.1, 30)):  # 800 ms less 0, 6 or 5 samples
        found = steps_that_fit(config, MODEL, Pieces((0.010,), 0.020, each), 1 + 2 * 8 * 5)
        assert (found.steps, found.sampling) == (steps, pytest.approx(each * samples(steps, 20)))
        assert found.total(1000) <= 1.0 < found.total(1000) + 0.010 + each + 1e-9
    none = replace(config, sample_every=0)  # but for the one at the end
    assert steps_that_fit(none, MODEL, Pieces((0.010,), 0.020, 0.05), 1 + 2 * 8 * 5).steps == 65


@pytest.mark.parametrize(
    ("steps", "every", "lengths"), [(5, 2, [160, 160, 160, 500]), (4, 2, [160, 160, 500]), (3, 0, [500])]
)
def test_the_samples_of_a_run(
    tmp_path: Path, quick_runs: None, monkeypatch: pytest.MonkeyPatch, steps: int, every: int, lengths: list[int]
) -> None:
    from bevia_fast.training import loop

    written: list[int] = []
    monkeypatch.setattr(loop, "short_sample", lambda run, seed, length=160: written.append(length) or "x")
    train(tiny_config(tmp_path, steps=steps, sample_every=every))
    assert written == lengths
    assert samples(steps, every) == sum(round(length / 160) for length in lengths)


def test_a_trial_times_the_real_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each stage, without what the first calls take; it ends at once where a step takes all the time there is."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, and the dog sat on the log.\n" * 40)
    model = replace(MODEL, ctx=16)
    config = TrainConfig(data=(str(text),), minutes=1.0, batch=2, ctx_schedule="8:3,16", model=model)
    corpus = Corpus(coded_text(text_source(config), Reporter()))
    config = replace(config, model=replace(model, vocab_size=len(corpus.tokenizer)))
    now, called = [0.0], list[str]()
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def timed(name: str, seconds: float, first: float) -> Any:
        real = getattr(trial, name)

        def act(*arguments: Any) -> Any:
            now[0] += seconds if name in called else first
            called.append(name)
            return real(*arguments)

        return act

    for name, seconds in (("_step", 1 / 128), ("evaluate", 1 / 32), ("short_sample", 0.5)):
        monkeypatch.setattr(trial, name, timed(name, seconds, 0.75))
    found = trial.time_pieces(config, get_backend("numpy"), corpus)
    assert (found.steps, found.evaluation, found.sample) == ((1 / 128, 1 / 128), 1 / 32, 0.5)
    assert called.count("_step") == 34 + 129  # a second for each stage
    called.clear()
    found = trial.time_pieces(replace(config, minutes=0.1), get_backend("numpy"), corpus)  # 5 % of it is 0.3 s
    assert called.count("_step") == 2
    assert found.steps == (0.75, 1 / 128)


@pytest.mark.usefixtures("clockwork")
def test_a_plan_of_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bevia_fast.planning.plan.largest_ctx", lambda *sizes, **ways: 8)
    tiny_config(tmp_path)  # writes the text
    words = ["plan", "--data", str(tmp_path / "text.txt"), "--backend", "numpy", "--preset", "tiny", "--ctx", "8"]
    assert main([*words, "--hours", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert main([*words, "--minutes", "0.6", "--json", "-"]) == 0
    plan = json.loads(capsys.readouterr().out)
    steps = plan["budget"]["steps"]
    assert 3000 < steps < 3600
    assert plan["config"]["steps"] == steps
    assert f"{steps:,} in 36.0 s: 10.0 ms each" in " ".join(shown.split())


def test_the_pace_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from bevia_fast.commands import pace

    now = [100.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    found = pace.Pace(1000, 60.0)
    now[0] = 103.3
    assert [found.at(step) for step in (0, 19, 50)] == ["-", "-", "+10%"]
    now[0] = 127.0
    assert found.at(500) == "-10%"
    now[0] = 166.0
    assert found.ended() == "1 min 6 s of 1 min 0 s (+10%)"
