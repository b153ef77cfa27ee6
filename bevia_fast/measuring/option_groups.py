"""Groups of options that several commands of `bench` and `profile` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..config import (
    NONE,
    PRESETS_SHOWN,
    BackendName,
    ModelConfig,
    OptimizerName,
    PositionsName,
    PrecisionName,
    PresetName,
    TrainConfig,
    WindowLayers,
    check_range,
    preset,
)
from ..errors import ConfigError

PeerName = Literal["torch", "torch-eager", "torch-compile", "torch-bf16"]
DtypeName = Literal["float32", "float64"]
OverName = Literal["ctx", "threads", "batch", "dim"]
FileName = Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)]
PictureName = Annotated[str, arg(metavar="FILE", help_behavior_hint="")]

TORCH_PEERS: tuple[PeerName, ...] = ("torch-eager", "torch-compile", "torch-bf16")


def _default(text: str) -> Any:
    return arg(help_behavior_hint=f"(default: {text}, or the run's)")


@dataclass(frozen=True)
class SizeOptions:
    """The sizes of a model and a batch: those of a run or of a preset, and changes to them."""

    run: Positional[Annotated[str, arg(metavar="[RUN]", help_behavior_hint="")]] = ""
    """Run folder or model.safetensors file whose model and batch to measure; the options change them."""
    preset: Annotated[
        PresetName, arg(help=f"Preset for the sizes that are not given, where no run is named.\n{PRESETS_SHOWN}")
    ] = "laptop"
    ctx: int = 0
    """Context length in tokens. 0: from the run or the preset, like the four sizes below."""
    dim: int = 0
    """Channels of the residual stream."""
    layers: int = 0
    """Transformer blocks."""
    heads: int = 0
    """Attention heads; dim must be divisible by it."""
    batch: int = 0
    """Sequences per batch."""
    vocab: Annotated[int, _default("65")] = 0
    """Vocabulary size."""
    positions: Annotated[
        PositionsName | None, arg(metavar="{learned,rotary}", help_behavior_hint="(default: learned, or the run's)")
    ] = None
    """Learned vectors for positions, or rotations of queries and keys."""
    window: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 0, or the run's)")] = None
    """Positions that attention sees. 0: the whole context."""
    window_layers: Annotated[
        WindowLayers | None, arg(metavar="{alternate,odd,all}", help_behavior_hint="(default: alternate, or the run's)")
    ] = None
    """Layers with the window: every second one, from the first or (odd) from the second on, or all."""
    dropout: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: 0, or the run's)")] = None
    """Dropout probability."""
    accumulate: Annotated[int, _default("1")] = 0
    """Batches per step, whose gradients are added."""
    optimizer: Annotated[
        OptimizerName | None, arg(metavar="{adamw,muon}", help_behavior_hint="(default: adamw, or the run's)")
    ] = None
    """What updates the weights."""
    recompute: bool = False
    """Keep only the input of each layer and recompute the rest, as the run does if it was trained so."""
    dtype: Annotated[
        DtypeName | None, arg(metavar="{float32,float64}", help_behavior_hint="(default: float32, or the run's)")
    ] = None
    """Floating-point type of weights and activations."""
    precision: Annotated[
        PrecisionName | None, arg(metavar="{float32,bf16}", help_behavior_hint="(default: float32, or the run's)")
    ] = None
    """Operands of matrix products: as they are, or rounded to bfloat16."""

    def check_sizes(self) -> None:
        """Raise ConfigError if there is no model with these sizes, CheckpointError if there is no such run."""
        self.step()
        check_range(self, "vocab", 0, 1 << 21)

    def step(self) -> TrainConfig:
        """Return the options of training that decide about a step, with the values of the run or the preset for what is
        not given."""
        for name, most in (("ctx", 1 << 24), ("dim", 1 << 24), ("layers", 1 << 24), ("heads", 1 << 24),
                           ("batch", 1 << 20), ("accumulate", 1 << 20)):  # fmt: skip
            check_range(self, name, 0, most)
        if self.run:
            from .run_sizes import run_config

            base = run_config(self.run)
        else:
            base = preset(self.preset, vocab_size=65)
        model: dict[str, Any] = {name: value for name in ("ctx", "dim", "layers", "heads")
                                 if (value := getattr(self, name))}  # fmt: skip
        model |= {"vocab_size": self.vocab} if self.vocab else {}
        others = ("positions", "window", "window_layers", "dropout", "dtype", "precision")
        model |= {name: value for name in others if (value := getattr(self, name)) is not None}
        step = {name: value for name in ("batch", "accumulate", "optimizer") if (value := getattr(self, name))}
        return replace(
            base, model=replace(base.model, **model), **step, recompute=base.recompute or self.recompute
        )

    def model(self) -> ModelConfig:
        """Return the configuration of the model."""
        return self.step().model

    def sequences(self) -> int:
        """Return the number of sequences per batch."""
        return self.step().batch


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
    """Append the results to the JSON list in this file, one object per result; - is standard output."""
    csv: FileName = ""
    """Append the results to this CSV file, one row per result; - is standard output."""

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


def is_own(name: str) -> bool:
    """Return whether a word on the command line names a kernel of the user's: FILE.py:FUNCTION."""
    return ".py:" in name


def check_seconds(config: Any) -> None:
    """Raise ConfigError for a measuring time that is not positive or exceeds an hour."""
    if not 0.0 < config.seconds <= 3600.0:
        raise ConfigError(f"--seconds is {config.seconds}; it must be greater than 0 and at most 3,600.")
