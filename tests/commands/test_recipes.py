"""Recipes: the values that they mean, what changes them, and what is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from bevia_fast.commands.arguments import parse
from bevia_fast.config import LARGER, PRESETS, ConfigError, ModelConfig, TrainConfig, preset
from bevia_fast.errors import UserError
from bevia_fast.recipes import RECIPES


def test_a_recipe_is_not_a_size() -> None:
    """So that any recipe goes with any preset; and all recipes say which positions and optimizer they take."""
    sizes = {name for options in PRESETS.values() for name in options} - LARGER.keys()
    known = {field.name for kind in (TrainConfig, ModelConfig) for field in fields(kind)}
    for name, options in RECIPES.items():
        assert not sizes & options.keys(), name
        assert options.keys() <= known, name
        assert {"positions", "optimizer", "lr", "min_lr", "bias"} <= options.keys(), name
        for size in PRESETS:
            preset(size, recipe=name)


def test_the_recipe_of_nanogpt() -> None:
    """Those of its README for a CPU, and of its configuration train_shakespeare_char."""
    config = preset("laptop", recipe="nanogpt")
    model = config.model
    assert (model.ctx, model.dim, model.layers, model.heads) == (64, 128, 4, 4)
    assert (model.bias, model.dropout, model.positions) == (False, 0.0, "learned")
    assert (config.batch, config.steps, config.lr, config.min_lr, config.warmup) == (12, 2000, 1e-3, 1e-4, 100)
    assert (config.optimizer, config.beta1, config.beta2, config.weight_decay) == ("adamw", 0.9, 0.99, 0.1)
    assert config.grad_clip == 1.0


def test_options_change_a_recipe_and_a_recipe_changes_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = preset("tiny", recipe="fast", steps=7, muon_lr=0.01)
    assert (fast.optimizer, fast.model.positions, fast.model.dim, fast.steps) == ("muon", "rotary", 64, 7)
    assert parse(["train", "--steps", "7", "--recipe", "fast", "--muon-lr", "0.01", "--preset", "tiny"]) == fast
    assert parse(["plan", "--steps", "7", "--recipe=fast", "--muon-lr", "0.01", "--preset", "tiny"]).config == fast
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text('recipe = "fast"\npreset = "tiny"\nsteps = 7\n')
    assert parse(["train", "--config", "a.toml", "--muon-lr", "0.01"]) == fast
    whole = preset("tiny", recipe="fast", model=ModelConfig(ctx=8))
    assert whole.model == ModelConfig(ctx=8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--recipe quick", "There is no recipe 'quick'; there are textbook, nanogpt, fast."),
        ("--recipe", "--recipe needs a value."),
        ("--recipe fast --resume runs/1", "--recipe cannot be combined with --resume; runs/1 keeps the options"),
        ("--recipe fast --config a.toml", "--recipe cannot be combined with --config; a.toml can have a line recipe"),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(["train", *line.split()])
    assert str(caught.value).startswith(message)


def test_an_unknown_recipe_from_python() -> None:
    with pytest.raises(ConfigError, match=r"^There is no recipe 'quick'; there are textbook, nanogpt, fast\.$"):
        preset("tiny", recipe="quick")  # type: ignore[arg-type]
