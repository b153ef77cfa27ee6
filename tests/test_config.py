"""Options: invalid values, and presets."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import bevia_fast
from bevia_fast.config import PRESETS, GenerateConfig, ModelConfig, TrainConfig, preset
from bevia_fast.errors import ConfigError
from bevia_fast.measuring.options import ProfileStepConfig
from bevia_fast.naming import flag, on_the_command_line

BAD_MODELS: list[dict[str, Any]] = [
    {"ctx": 0}, {"ctx": -1}, {"ctx": 1 << 30}, {"dim": 0}, {"dim": 1 << 20}, {"layers": 0}, {"heads": 0},
    {"dim": 10, "heads": 3}, {"dropout": 1.0}, {"dropout": -0.1}, {"dropout": math.nan}, {"vocab_size": -1},
    {"activation": "tanh"}, {"norm": "none"}, {"dtype": "float16"}, {"ctx": 8.0}, {"ctx": "8"}, {"ctx": True},
    {"tie": 1}, {"dropout": "a lot"}, {"dtype": ["float32"]},
]  # fmt: skip

BAD_TRAINING: list[dict[str, Any]] = [
    {"steps": 0}, {"batch": 0}, {"batch": 1 << 40}, {"accumulate": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": math.inf},
    {"lr": math.nan}, {"min_lr": -1e-9}, {"min_lr": 1.0}, {"warmup": -1}, {"weight_decay": -0.1},
    {"weight_decay": math.nan}, {"beta1": 1.0}, {"beta2": -0.1}, {"beta2": math.nan}, {"eps": 0.0},
    {"grad_clip": -1.0}, {"eval_every": 0}, {"eval_batches": -1}, {"sample_every": -1}, {"crosscheck_every": -1},
    {"threads": -1}, {"threads": 1 << 20}, {"seed": -1}, {"seed": 1 << 64}, {"backend": "torch"},
    {"out": None}, {"out": 3}, {"resume": None}, {"data": b"a.txt"}, {"data": 3}, {"data": None}, {"data": [None]},
    {"glob": None}, {"glob": ["*.md", 3]}, {"model": None}, {"model": {"dim": 16}},
]  # fmt: skip

BAD_GENERATION: list[dict[str, Any]] = [
    {"length": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": -1},
    {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan}, {"seed": -1},
]  # fmt: skip


def assert_rejected(config: type, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**options)
    with on_the_command_line(), pytest.raises(ConfigError) as typed:
        config(**options)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert "--" not in message
    assert any(re.match(rf"{name}\b", message) for name in options), message
    assert any(str(typed.value).startswith(f"{flag(name)} ") for name in options), str(typed.value)


@pytest.mark.parametrize("options", BAD_MODELS, ids=str)
def test_bad_models_are_rejected_in_one_sentence(options: dict[str, Any]) -> None:
    assert_rejected(ModelConfig, options)


@pytest.mark.parametrize("options", BAD_TRAINING, ids=str)
def test_bad_training_options_are_rejected_in_one_sentence(options: dict[str, Any]) -> None:
    assert_rejected(TrainConfig, options)


@pytest.mark.parametrize("options", BAD_GENERATION, ids=str)
def test_bad_generation_options_are_rejected_in_one_sentence(options: dict[str, Any]) -> None:
    assert_rejected(lambda **more: GenerateConfig(run="", **more), options)  # type: ignore[arg-type]


def test_preset_sizes() -> None:
    found = {name: preset(name) for name in PRESETS}
    sizes = {
        name: (c.model.ctx, c.model.dim, c.model.layers, c.model.heads, c.batch) for name, c in found.items()
    }
    assert sizes == {
        "tiny": (64, 64, 1, 1, 8),
        "laptop": (64, 128, 4, 4, 12),
        "baby": (256, 384, 6, 6, 16),
        "long": (2048, 256, 4, 4, 2),
    }
    assert found["laptop"] == TrainConfig()


def test_the_earlier_name_of_a_preset_still_works() -> None:
    assert preset("seed", heads=2) == preset("tiny", heads=2)
    assert ProfileStepConfig(preset="seed").model().dim == 64  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no preset 'huge'; there are tiny \(ctx 64, dim 64, .*, batch 8\), laptop"):
        preset("huge")  # type: ignore[arg-type]


def test_changes_override_a_preset() -> None:
    config = preset("tiny", steps=5, heads=2, dropout=0.1)
    assert (config.steps, config.batch, config.model.dim) == (5, 8, 64)
    assert (config.model.heads, config.model.dropout) == (2, 0.1)
    whole = preset("tiny", model=ModelConfig(dim=256), heads=8)
    assert (whole.model, whole.batch) == (ModelConfig(dim=256, heads=8), 8)
    for bad in ({"widht": 3}, {"name": "huge"}):
        with pytest.raises(ConfigError):
            preset(**{"name": "tiny", **bad})  # type: ignore[arg-type]


def test_infinite_values_are_rejected() -> None:
    for options in ({"lr": math.inf}, {"eps": math.inf}, {"weight_decay": math.inf}, {"save_seconds": math.inf}):
        with pytest.raises(ConfigError, match="is inf; it must be a finite number"):
            TrainConfig(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is inf; it must be a finite number"):
        GenerateConfig(run="", temperature=math.inf)


def test_data_may_be_a_single_path() -> None:
    assert TrainConfig(data="a.txt").data == ("a.txt",)
    assert TrainConfig(data=Path("a.txt")).data == ("a.txt",)  # type: ignore[arg-type]
    assert TrainConfig(data=["a.txt", "b.txt"]).data == ("a.txt", "b.txt")


def test_a_configuration_survives_a_round_trip_through_a_dict() -> None:
    config = ModelConfig(ctx=8, dim=6, heads=3, tie=False)
    assert ModelConfig(**asdict(config)) == config
    assert replace(config, ctx=9).ctx == 9


def test_the_package_loads_its_names_lazily() -> None:
    code = (
        "import sys, bevia_fast\n"
        "assert not {'numpy', 'numba', 'tyro'} & set(sys.modules)\n"
        "from bevia_fast import GPT, ModelConfig, TrainConfig, train, generate\n"
        "import bevia_fast.training.loop, bevia_fast.model.writing\n"
        "assert callable(bevia_fast.train) and callable(bevia_fast.generate)\n"
        "assert 'numba' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in bevia_fast.__all__:
        assert name in dir(bevia_fast)
        assert getattr(bevia_fast, name) is not None
    assert bevia_fast.__version__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bevia_fast.nonsense
