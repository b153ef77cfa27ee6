"""Recipes: how a model is trained, by name. A preset says how large a model is; a recipe never does.

A recipe is a set of values for options, which options that are given change. A run's configuration holds the values, so
that it stays what it was if a recipe is changed.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from .errors import ConfigError

RecipeName = Literal["textbook", "nanogpt", "fast"]

_LEARNED: dict[str, Any] = {
    "positions": "learned", "optimizer": "adamw", "lr": 1e-3, "min_lr": 1e-4, "warmup": 100, "beta1": 0.9,
    "beta2": 0.99, "weight_decay": 0.1, "grad_clip": 1.0, "dropout": 0.0,
}  # fmt: skip
RECIPES: dict[RecipeName, dict[str, Any]] = {
    # the article's: AdamW at a cautious learning rate, learned positions, biases
    "textbook": {**_LEARNED, "bias": True, "steps": 1250},
    # github.com/karpathy/nanoGPT: config/train_shakespeare_char.py with what its README changes for a CPU
    "nanogpt": {**_LEARNED, "bias": False, "steps": 2000},
    # what reaches the lowest loss in as many steps; docs/training.md has the figures
    "fast": {
        **_LEARNED, "positions": "rotary", "optimizer": "muon", "lr": 4e-3, "min_lr": 4e-4, "muon_lr": 0.02,
        "muon_momentum": 0.95, "bias": True,
    },
}  # fmt: skip
RECIPES_SHOWN = "\n".join((
    "textbook: AdamW at a learning rate of 1e-3, learned positions.",
    "nanogpt: the same without biases for 2,000 steps, as nanoGPT trains on a CPU.",
    "fast: Muon and rotary positions, which reach a lower loss in as many steps.",
))  # fmt: skip


def recipe_options(name: str) -> dict[str, Any]:
    """Return the values of a recipe's options; none for an empty name. Raises ConfigError for an unknown name."""
    if not name:
        return {}
    for known, options in RECIPES.items():
        if name == known:
            return options
    raise ConfigError(f"There is no recipe {name!r}; there are {', '.join(get_args(RecipeName))}.")
