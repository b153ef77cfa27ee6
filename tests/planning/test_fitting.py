"""Sizes for a text, a machine and a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import tiny_config

from bevia_fast import ModelConfig, TrainConfig
from bevia_fast.commands.arguments import AutoCommand, parse
from bevia_fast.commands.main import main
from bevia_fast.errors import ConfigError
from bevia_fast.model.activations import LONG
from bevia_fast.planning import fitting
from bevia_fast.planning.budget import Pieces
from bevia_fast.planning.fitting import BEST_RATIO, CONTEXTS, DIMS, EXCESS, FORECAST_CTX, READINGS, fit, law
from bevia_fast.planning.forecast import products

pytestmark = pytest.mark.usefixtures("two_threads")


class Clockwork:
    """A machine of 100 GFLOP/s, whatever it computes."""

    def __init__(self, *sizes: Any) -> None:
        pass

    def seconds(self, step: Any) -> float:
        return products(step) / 100e9

    def seconds_of(self, calls: Any) -> float:
        return 0.0


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "Forecast", Clockwork)


def test_the_law_without_repetition_is_chinchillas() -> None:
    """And its best size for a number of operations, 6 N D, has about twenty tokens per parameter."""
    assert law(1e6, 2e7, 1e12) == pytest.approx(521 / 1e6**0.353 + 1488 / 2e7**0.353 + 1.87)
    operations = 6 * 1e6 * 1e6 / BEST_RATIO
    losses = {ratio: law(size := math.sqrt(operations / 6 / ratio), ratio * size, 1e15) for ratio in range(10, 40)}
    assert min(losses, key=lambda ratio: losses[ratio]) == round(1 / BEST_RATIO) == 20


def test_what_is_read_again_is_worth_less() -> None:
    """After an infinity of readings, a text is worth READINGS more of it, and parameters EXCESS more."""
    distinct = 1e6
    losses = [law(1e4, times * distinct, distinct) for times in (1, 2, 4, 16, 64, 1e6)]
    assert losses == sorted(losses, reverse=True)
    second, fresh = law(1e4, 2 * distinct, distinct), law(1e4, 2 * distinct, 1e9)
    assert fresh < second < fresh + 0.2 * (losses[0] - fresh)  # nearly as good as new
    base = 1e4
    worth = distinct * (1 + READINGS)
    assert losses[-1] == pytest.approx(521 / base**0.353 + 1488 / worth**0.353 + 1.87)
    filled = BEST_RATIO * distinct
    assert law(1e12, distinct, distinct) == pytest.approx(
        521 / (filled * (1 + EXCESS)) ** 0.353 + 1488 / distinct**0.353 + 1.87
    )


def test_the_sizes_proposed_call_the_kernels_that_were_timed() -> None:
    assert LONG * DIMS[0] > FORECAST_CTX
    assert max(ctx for _, ctx in CONTEXTS) < LONG * 64
    assert CONTEXTS[0][1] < LONG * DIMS[0], "a dim of 32 has too few parameters for a longer context"


@pytest.mark.usefixtures("clockwork")
def test_more_time_and_more_text_make_larger_models(tmp_path: Path) -> None:
    chosen: dict[tuple[int, float], int] = {}
    for characters in (30_000, 3_000_000):
        text = tmp_path / f"{characters}.txt"
        text.write_text("the cat sat on the mat, and the dog sat on the log.\n" * (characters // 52))
        for minutes in (0.05, 1.0, 30.0):
            found = fit(TrainConfig(data=(str(text),), minutes=minutes, backend="numpy"))
            assert [each.loss for each in found] == sorted(each.loss for each in found)
            best = found[0]
            chosen[characters, minutes] = best.parameters
            assert best.budget.total(best.config.eval_every) <= 60 * minutes
            assert best.config.model.dim % best.config.model.heads == 0
            assert 512 <= best.config.batch * best.config.model.ctx <= 4096
    sizes = [[chosen[characters, minutes] for minutes in (0.05, 1.0, 30.0)] for characters in (30_000, 3_000_000)]
    for row in sizes:
        assert row == sorted(row)
    assert sizes[1][2] > sizes[0][2]
    assert sizes[1][2] > sizes[1][0]


@pytest.mark.parametrize("options", [
    {"positions": "rotary"}, {"dropout": 0.1, "dtype": "float64"}, {"norm": "post", "activation": "relu"},
    {"bias": False, "tie": False}, {"window": 16},
], ids=str)  # fmt: skip
def test_models_of_every_kind_can_be_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The steps that are timed make the same calls, so that the forecast knows each of them."""
    monkeypatch.setattr(fitting, "DIMS", (32, 64))
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, and the dog sat on the log.\n" * 200)
    found = fit(TrainConfig(data=(str(text),), minutes=1.0, backend="numpy", model=ModelConfig(**options)))
    assert all(getattr(each.config.model, name) == value for each in found for name, value in options.items())


@pytest.mark.usefixtures("clockwork")
def test_what_cannot_be_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, steps=1250)
    with pytest.raises(ConfigError, match=r"^Sizes can only be chosen for a time; give it with minutes\.$"):
        fit(config)
    with pytest.raises(ConfigError, match=r"^minutes is 1e-09; not even the smallest model does a step"):
        fit(TrainConfig(data=config.data, minutes=1e-9, backend="numpy"))
    for words, said in (
        (["train", "--preset", "auto"], "Sizes can only be chosen for a time; give it with --minutes."),
        (["plan", "--fit", "--data", "-", "--minutes", "1"], "the text is read twice"),
        (["train", "--preset=auto", "--minutes", "1", "--steps", "3"], "--steps cannot be combined with --minutes"),
        (["train", "--fit", "--minutes", "1"], "--fit"),
        (["train", "--preset", "automatic"], "There is no preset 'automatic'"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.usefixtures("clockwork", "quick_runs")
def test_the_command_says_what_it_chose_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bevia_fast.planning.plan.StagedForecast", Clockwork)
    monkeypatch.setattr("bevia_fast.training.opening.time_pieces", lambda *sizes: Pieces((0.0005,), 0.001))
    (tmp_path / "text.txt").write_text("the cat sat on the mat, and the dog sat on the log.\n" * 100)
    options = ["--data", str(tmp_path / "text.txt"), "--backend", "numpy", "--minutes", "0.0005"]
    assert isinstance(parse(["plan", "--fit", *options]), AutoCommand)
    assert main(["plan", "--fit", *options, "--layers", "3"]) == 0
    shown = capsys.readouterr().out
    assert "chosen   dim " in shown
    assert "Muennighoff et al. 2023" in shown
    assert "3 layers of" in shown, "an option of the command changes the proposal"
    assert main(["train", "--preset", "auto", *options, "--out", str(tmp_path / "run"), "--film", "0"]) == 0
    assert "chosen   dim " in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").exists()
