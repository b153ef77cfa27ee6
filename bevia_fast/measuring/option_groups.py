"""Options that several commands of `bench` and `profile` have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import arg

from ..config import BackendName, ModelConfig, PresetName, preset
from ..errors import ConfigError

PeerName = Literal["torch", "torch-eager", "torch-compile", "torch-bf16"]
DtypeName = Literal["float32", "float64"]
OverName = Literal["ctx", "threads", "batch", "dim"]
NONE = "(default: none)"
FileName = Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)]

TORCH_PEERS: tuple[PeerName, ...] = ("torch-eager", "torch-compile", "torch-bf16")


@dataclass(frozen=True)
class SizeOptions:
    """A model and a batch. What is 0 is taken from the preset."""

    preset: PresetName = "laptop"
    """Sizes to begin with."""
    ctx: int = 0
    """Context length. 0: the preset's, as with the sizes below."""
    dim: int = 0
    """Channels of the residual stream."""
    layers: int = 0
    """Transformer blocks."""
    heads: int = 0
    """Attention heads; dim must be divisible by it."""
    batch: int = 0
    """Sequences in a batch."""
    vocab: int = 65
    """Distinct tokens."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and activations."""

    def check_sizes(self) -> None:
        """Raises ConfigError if these sizes make no model."""
        self.model()
        check_range(self, "batch", 0, 1 << 20)
        check_range(self, "vocab", 1, 1 << 21)

    def model(self) -> ModelConfig:
        """The model that is meant."""
        for name in ("ctx", "dim", "layers", "heads"):
            check_range(self, name, 0, 1 << 24)
        changes = {name: value for name in ("ctx", "dim", "layers", "heads") if (value := getattr(self, name))}
        return replace(preset(self.preset).model, vocab_size=self.vocab, dtype=self.dtype, **changes)

    def sequences(self) -> int:
        """The batch that is meant."""
        return self.batch or preset(self.preset).batch


@dataclass(frozen=True)
class TimingOptions:
    """How long is measured, and where the results go."""

    backend: tuple[BackendName, ...] = ("numpy", "numba")
    """Kernels to compare."""
    threads: tuple[int, ...] = ()
    """Numbers of threads to compare. Without it: one for each physical core."""
    seconds: float = 3.0
    """Seconds of measuring for each competitor, at least."""
    json: FileName = ""
    """Add the results to the list in this file, one object for each."""
    csv: FileName = ""
    """Add the results to this file, a line for each."""

    def check_timing(self) -> None:
        """Raises ConfigError for what cannot be measured."""
        if not self.backend:
            raise ConfigError("--backend names no backend; there are numpy and numba.")
        for threads in self.threads:
            if not 1 <= threads <= 4096:
                raise ConfigError(f"--threads is {threads}; it must be from 1 to 4,096.")
        check_seconds(self)


@dataclass(frozen=True)
class TurnOptions(TimingOptions):
    """The same for competitors that take turns."""

    turns: int = 5
    """How often the competitors take turns. Turns of training steps that do not count are made again."""

    def check_timing(self) -> None:
        super().check_timing()
        check_range(self, "turns", 1, 10_000)


@dataclass(frozen=True)
class PeerOptions:
    """Others to compare with."""

    peer: tuple[PeerName, ...] = ()
    """Also time PyTorch: torch means eager, compile and bf16."""
    torch_python: Annotated[str, arg(metavar="PYTHON", help_behavior_hint=NONE)] = ""
    """An interpreter that has PyTorch. Without it: this one."""

    def peers(self) -> list[PeerName]:
        """The columns that are meant, each once."""
        found: list[PeerName] = []
        for name in self.peer:
            found += TORCH_PEERS if name == "torch" else (name,)
        return list(dict.fromkeys(found))


def check_range(config: object, name: str, least: int, most: int) -> None:
    """Raises ConfigError for a field that is not from `least` to `most`."""
    value = getattr(config, name)
    if not least <= value <= most:
        option = "--" + name.replace("_", "-")
        raise ConfigError(f"{option} is {value:,}; it must be from {least:,} to {most:,}.")


def check_seconds(config: Any) -> None:
    """Raises ConfigError for a time that cannot be measured in, or that nobody waits."""
    if not 0.0 < config.seconds <= 3600.0:
        raise ConfigError(f"--seconds is {config.seconds}; it must be greater than 0 and at most 3,600.")
