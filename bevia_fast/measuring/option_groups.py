"""Groups of options that several commands of `bench` and `profile` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import arg

from ..config import NONE, PRESETS_SHOWN, BackendName, ModelConfig, PresetName, check_range, preset
from ..errors import ConfigError

PeerName = Literal["torch", "torch-eager", "torch-compile", "torch-bf16"]
DtypeName = Literal["float32", "float64"]
OverName = Literal["ctx", "threads", "batch", "dim"]
FileName = Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)]

TORCH_PEERS: tuple[PeerName, ...] = ("torch-eager", "torch-compile", "torch-bf16")


@dataclass(frozen=True)
class SizeOptions:
    """The sizes of a model and a batch. A size of 0 is taken from the preset."""

    preset: Annotated[PresetName, arg(help=f"Preset for the sizes that are not given.\n{PRESETS_SHOWN}")] = "laptop"
    ctx: int = 0
    """Context length in tokens. 0: from the preset, like the four sizes below."""
    dim: int = 0
    """Channels of the residual stream."""
    layers: int = 0
    """Transformer blocks."""
    heads: int = 0
    """Attention heads; dim must be divisible by it."""
    batch: int = 0
    """Sequences per batch."""
    vocab: int = 65
    """Vocabulary size."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and activations."""

    def check_sizes(self) -> None:
        """Raise ConfigError if there is no model with these sizes."""
        self.model()
        check_range(self, "batch", 0, 1 << 20)
        check_range(self, "vocab", 1, 1 << 21)

    def model(self) -> ModelConfig:
        """Return the configuration of the model, with the preset's values for sizes of 0."""
        for name in ("ctx", "dim", "layers", "heads"):
            check_range(self, name, 0, 1 << 24)
        changes = {name: value for name in ("ctx", "dim", "layers", "heads") if (value := getattr(self, name))}
        return replace(preset(self.preset).model, vocab_size=self.vocab, dtype=self.dtype, **changes)

    def sequences(self) -> int:
        """Return the number of sequences per batch."""
        return self.batch or preset(self.preset).batch


@dataclass(frozen=True)
class TimingOptions:
    """What to compare, how long to measure, and where to write the results."""

    backend: tuple[BackendName, ...] = ("numpy", "numba")
    """Backends to compare."""
    threads: Annotated[tuple[int, ...], arg(help_behavior_hint="(default: one per physical core)")] = ()
    """Numbers of threads to compare."""
    seconds: float = 3.0
    """Minimum time to measure each competitor, in seconds."""
    json: FileName = ""
    """Append the results to the JSON list in this file, one object per result."""
    csv: FileName = ""
    """Append the results to this CSV file, one row per result."""

    def check_timing(self) -> None:
        """Raise ConfigError for options that cannot be measured."""
        if not self.backend:
            raise ConfigError("--backend names no backend; choose numpy, numba or both.")
        for threads in self.threads:
            if not 1 <= threads <= 4096:
                raise ConfigError(f"--threads is {threads}; it must be from 1 to 4,096.")
        check_seconds(self)


@dataclass(frozen=True)
class TurnOptions(TimingOptions):
    """The same options for competitors that take turns."""

    turns: int = 5
    """Turns per competitor. Turns of training steps are repeated if the machine was busy."""

    def check_timing(self) -> None:
        super().check_timing()
        check_range(self, "turns", 1, 10_000)


@dataclass(frozen=True)
class PeerOptions:
    """Other programs to compare with."""

    peer: Annotated[tuple[PeerName, ...], arg(help_behavior_hint=NONE)] = ()
    """Also time PyTorch; torch means all of torch-eager, torch-compile and torch-bf16."""
    torch_python: Annotated[str, arg(metavar="PYTHON", help_behavior_hint="(default: the current one)")] = ""
    """Python interpreter that has PyTorch."""

    def peers(self) -> list[PeerName]:
        """Return the peers, each once, with torch replaced by its three ways to run."""
        found: list[PeerName] = []
        for name in self.peer:
            found += TORCH_PEERS if name == "torch" else (name,)
        return list(dict.fromkeys(found))


def check_seconds(config: Any) -> None:
    """Raise ConfigError for a measuring time that is not positive or exceeds an hour."""
    if not 0.0 < config.seconds <= 3600.0:
        raise ConfigError(f"--seconds is {config.seconds}; it must be greater than 0 and at most 3,600.")
