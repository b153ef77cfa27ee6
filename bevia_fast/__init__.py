"""bevia-fast: train a small GPT from scratch on a laptop's CPU, with every gradient written out.

    from bevia_fast import ModelConfig, TrainConfig, generate, train

    run = train(TrainConfig(model=ModelConfig(dim=64, layers=2), steps=500))
    print(generate(run, prompt="The "))

Names are loaded when they are first used, so that importing the package takes no time.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backends import open_backend
    from .commands.from_python import train
    from .config import GenerateConfig, ModelConfig, TrainConfig, preset
    from .data.tokenizer import Tokenizer
    from .errors import UserError
    from .explorer.exploring import Explorer, explore
    from .kernels import get_backend
    from .model.gpt import GPT
    from .model.parameters import Parameters
    from .reporter import Reporter
    from .runs.checkpoint import resume
    from .runs.trained import Run, generate
    from .tensorboard import TensorBoardReporter

__version__: str

if not os.path.isdir(os.path.join(os.path.dirname(__file__), "kernels")):
    # A checkout, where kernels/ lies beside this folder and not in it: Python started there finds both.
    __path__.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

__all__ = [
    "GPT", "Explorer", "GenerateConfig", "ModelConfig", "Parameters", "Reporter", "Run", "TensorBoardReporter",
    "Tokenizer", "TrainConfig", "UserError", "explore", "generate", "get_backend", "open_backend", "preset", "resume",
    "train",
]  # fmt: skip

_HOMES = {
    "GPT": "model.gpt", "Explorer": "explorer.exploring", "GenerateConfig": "config", "ModelConfig": "config",
    "Parameters": "model.parameters", "Reporter": "reporter", "Run": "runs.trained",
    "TensorBoardReporter": "tensorboard", "Tokenizer": "data.tokenizer", "TrainConfig": "config",
    "UserError": "errors", "explore": "explorer.exploring", "generate": "runs.trained", "get_backend": "kernels",
    "open_backend": "backends", "preset": "config", "resume": "runs.checkpoint", "train": "commands.from_python",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bevia-fast")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if hasattr(value, "__dataclass_fields__"):
        from .describing import describe_fields

        describe_fields(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
