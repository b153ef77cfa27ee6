"""The options of `bench loss`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args

from tyro.conf import arg

from ..config import NONE, PRESETS_SHOWN, BackendName, PresetName, TrainConfig, check_range, preset
from ..errors import ConfigError
from ..recipes import RecipeName
from .option_groups import FileName, PeerName

FIRST_SEED = 1


@dataclass(frozen=True)
class BenchLossConfig:
    """Measure how long training takes to reach a validation loss: seconds and tokens, for each recipe.
    Only training steps are timed, not evaluations, compilation or reading the text."""

    target: Annotated[float, arg(help_behavior_hint="(required)")] = 0.0
    """The validation loss to reach, in nats per token."""
    recipe: Annotated[
        tuple[RecipeName, ...], arg(metavar="RECIPE ...", help_behavior_hint="(default: all)")
    ] = get_args(RecipeName)  # fmt: skip
    """Recipes to compare: textbook, nanogpt, fast."""
    preset: Annotated[PresetName, arg(help=f"Preset for the sizes.\n{PRESETS_SHOWN}")] = "laptop"
    data: Annotated[Sequence[str], arg(metavar="PATH ...", help_behavior_hint=NONE)] = ()
    """Text to train on: files or folders. If omitted: the language reference that comes with Python."""
    tokens: Annotated[str, arg(metavar="{chars,bytes,bpe:N,FILE}")] = "chars"
    """What a token is, as for train."""
    seeds: int = 3
    """Random seeds; every recipe is trained with each."""
    steps: Annotated[int, arg(help_behavior_hint="(default: those of the recipe)")] = 0
    """Steps of each run, over which the learning rate falls. A run ends as soon as the target is reached."""
    every: int = 50
    """Steps between evaluations, and so the precision of the result."""
    peer: Annotated[tuple[PeerName, ...], arg(help_behavior_hint=NONE)] = ()
    """Also train the same models in PyTorch, with the same initial weights, batches and learning rates.
    torch means torch-eager. Recipes with Muon or rotary positions are left out."""
    torch_python: Annotated[str, arg(metavar="PYTHON", help_behavior_hint="(default: the current one)")] = ""
    """Python interpreter that has PyTorch."""
    backend: BackendName = "numba"
    """Backend to measure."""
    threads: int = 0
    """Number of threads. 0: one per physical core."""
    json: FileName = ""
    """Write the results to this file as a JSON list; - is standard output."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", tuple(map(str, self.data)))
        if not 0.0 < self.target < math.inf:
            raise ConfigError(f"--target is {self.target:g}; it must be a finite number greater than 0, such as 1.6.")
        for name, least, most in (("seeds", 1, 1000), ("steps", 0, 1 << 40), ("every", 1, 1 << 40)):
            check_range(self, name, least, most)
        check_range(self, "threads", 0, 4096)
        if not self.recipe:
            raise ConfigError("--recipe names no recipe; omit it for all of them.")
        for name in self.recipe:
            self.config(name, FIRST_SEED)  # raises ConfigError for an unknown one

    def peers(self) -> list[str]:
        """Return the peers, each once."""
        return list(dict.fromkeys("torch-eager" if name == "torch" else name for name in self.peer))

    def numbers(self) -> range:
        """Return the seeds."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)

    def config(self, recipe: RecipeName, seed: int) -> TrainConfig:
        """Return the options of one run."""
        options: dict[str, Any] = {
            "seed": seed, "data": self.data, "tokens": self.tokens, "backend": self.backend, "threads": self.threads,
        }  # fmt: skip
        found = preset(self.preset, recipe=recipe, **options)
        return replace(found, steps=self.steps, warmup=min(found.warmup, self.steps)) if self.steps else found
