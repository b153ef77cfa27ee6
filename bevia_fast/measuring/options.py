"""The options of `bench` and `profile`, each declared once; the command line is generated from them, see `config`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..config import BackendName, ModelConfig, check_range
from ..errors import ConfigError
from .option_groups import (
    DtypeName,
    FileName,
    OverName,
    PeerOptions,
    SizeOptions,
    TimingOptions,
    TurnOptions,
    check_seconds,
)


@dataclass(frozen=True)
class BenchStepConfig(SizeOptions, TurnOptions, PeerOptions):
    """Time whole training steps. The backends take turns, and so does PyTorch if --peer asks for it."""

    def __post_init__(self) -> None:
        self.check_sizes()
        self.check_timing()


@dataclass(frozen=True)
class BenchKernelsConfig(TurnOptions):
    """Time every kernel, forward and backward, at a small, a medium and a large size."""

    only: Annotated[tuple[str, ...], arg(metavar="KERNEL ...", help_behavior_hint="(default: all)")] = ()
    """Time only these kernels; `bevia-fast profile list` names them."""
    dtype: DtypeName = "float32"
    """Floating-point type of the arrays."""
    quick: bool = False
    """Time only the small size of each kernel."""
    cold: bool = False
    """Empty the caches before each call."""
    seconds: float = 0.5
    """Minimum time to measure each kernel, size and backend, in seconds."""

    def __post_init__(self) -> None:
        self.check_timing()


@dataclass(frozen=True)
class BenchScalingConfig(SizeOptions, TurnOptions, PeerOptions):
    """Time whole training steps while one size grows, print a table and draw a picture."""

    over: OverName = "ctx"
    """The size that grows."""
    values: Annotated[
        tuple[int, ...],
        arg(metavar="INT ...", help_behavior_hint="(default: four, each twice the last; threads: 1 to physical cores)"),
    ] = ()
    """Values of that size."""
    out: Annotated[str, arg(metavar="FILE")] = "scaling.png"
    """PNG file to write."""

    def __post_init__(self) -> None:
        self.check_sizes()
        self.check_timing()
        if self.over == "threads" and self.threads:
            raise ConfigError("--over threads takes the numbers of threads from --values, not from --threads.")
        if self.over != "threads" and len(self.threads) > 1:
            raise ConfigError(f"--over {self.over} takes one number of --threads, not {len(self.threads)}.")
        for value in self.values:
            if value < 1:
                raise ConfigError(f"--values has {value}; each must be at least 1.")
            if self.over != "threads":
                self.at(value)  # raises ConfigError if there is no model of that size

    def at(self, value: int) -> BenchStepConfig:
        """Return the options of one point of the curve."""
        options = {field.name: getattr(self, field.name) for field in fields(BenchStepConfig)}
        changes: dict[str, Any] = {"threads": (value,)} if self.over == "threads" else {self.over: value}
        return BenchStepConfig(**options | changes)


@dataclass(frozen=True)
class BenchContextsConfig(TimingOptions, PeerOptions):
    """Measure memory and time of a training step while the context grows, without and with --recompute. Prints a table
    and draws a picture. Each point runs in its own process."""

    dim: int = 128
    """Channels of the residual stream."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 2
    """Attention heads; dim must be divisible by it."""
    batch: int = 1
    """Sequences per batch."""
    vocab: int = 65
    """Vocabulary size."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and activations."""
    values: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="(default: 512 1024 ... 65536)")] = ()
    """Context lengths."""
    limit: float = 120.0
    """Longest time that a step may take, in seconds; longer contexts are left out."""
    seconds: float = 2.0
    """Minimum time to measure each point, in seconds. At least three steps are timed, or one of more than 10 s."""
    out: Annotated[str, arg(metavar="FILE")] = "contexts.png"
    """PNG file to write."""

    def __post_init__(self) -> None:
        check_range(self, "batch", 1, 1 << 20)
        check_range(self, "vocab", 1, 1 << 21)
        self.check_timing()
        if len(self.threads) > 1:
            raise ConfigError(f"bench contexts takes one number of --threads, not {len(self.threads)}.")
        if self.dtype != "float32" and "torch-bf16" in self.peers():
            raise ConfigError("--peer torch-bf16 needs --dtype float32; with float64, use torch-eager.")
        if not 0.0 < self.limit <= 86400.0:
            raise ConfigError(f"--limit is {self.limit}; it must be greater than 0 and at most 86,400.")
        for value in self.contexts():
            if value < 1:
                raise ConfigError(f"--values has {value}; each must be at least 1.")
            self.at(value)  # raises ConfigError if there is no model of that size

    def contexts(self) -> tuple[int, ...]:
        """Return the context lengths, from the shortest to the longest."""
        return tuple(sorted(set(self.values))) or tuple(512 << power for power in range(8))

    def at(self, ctx: int) -> ModelConfig:
        """Return the model of one point."""
        return ModelConfig(
            ctx=ctx, dim=self.dim, layers=self.layers, heads=self.heads, dtype=self.dtype, vocab_size=self.vocab
        )


@dataclass(frozen=True)
class BenchCompareConfig:
    """Compare two results files, for example from two machines."""

    a: Positional[Annotated[str, arg(metavar="A.JSON", help_behavior_hint="(required)")]] = ""
    """The baseline."""
    b: Positional[Annotated[str, arg(metavar="B.JSON", help_behavior_hint="(required)")]] = ""
    """The results to compare with it."""

    def __post_init__(self) -> None:
        if not self.a or not self.b:
            raise ConfigError("Name two results files, as in: bevia-fast bench compare a.json b.json")


@dataclass(frozen=True)
class ProfileKernelConfig:
    """Compare single kernels with the limits of this machine. `bevia-fast profile list` lists the kernels,
    `bevia-fast profile all` measures all of them, and `bevia-fast profile step` breaks down a training step."""

    kernels: Positional[Annotated[tuple[str, ...], arg(metavar="KERNEL ...", help_behavior_hint="(required)")]]
    """Kernels to measure: attention for both directions, attention_forward for one."""
    ctx: int = 1024
    """Context length: positions per sequence."""
    batch: int = 1
    """Sequences per batch."""
    heads: int = 4
    """Attention heads."""
    head_size: int = 0
    """Channels per head. 0: dim / heads."""
    dim: int = 0
    """Channels. 0: heads x head-size, or 256."""
    out_dim: int = 0
    """Output channels of linear. 0: 4 x dim."""
    vocab: int = 65
    """Vocabulary size, for embedding and cross_entropy."""
    parameters: int = 0
    """Parameters that adamw updates. 0: 12 x dim x dim, as in one layer."""
    dtype: DtypeName = "float32"
    """Floating-point type of the arrays."""
    backend: tuple[BackendName, ...] = ("numpy", "numba")
    """Backends to measure."""
    threads: int = 0
    """Number of threads. 0: one per physical core."""
    seconds: float = 1.0
    """Minimum time to measure each kernel and backend, in seconds."""
    cold: bool = False
    """Empty the caches before each call."""
    asm: bool = False
    """Show the hot loop of the machine code: instruction set, vector width, FMAs, loads, spills."""
    out: Annotated[str, arg(metavar="FILE")] = "roofline.png"
    """PNG file to write."""
    json: FileName = ""
    """Append the results to the JSON list in this file, one object per result."""

    def __post_init__(self) -> None:
        if self.asm and "numba" not in self.backend:
            raise ConfigError("--asm shows the machine code of numba; add numba to --backend.")
        if not self.kernels:
            raise ConfigError("Name a kernel, such as attention; bevia-fast profile list lists them all.")
        most = 1 << 24
        for name, least in (("ctx", 1), ("batch", 1), ("heads", 1), ("head_size", 0), ("dim", 0), ("out_dim", 0),
                            ("vocab", 1), ("parameters", 0)):  # fmt: skip
            check_range(self, name, least, most if name != "parameters" else 1 << 34)
        check_range(self, "threads", 0, 4096)
        if not self.backend:
            raise ConfigError("--backend names no backend; choose numpy, numba or both.")
        check_seconds(self)
        if self.dim and self.head_size and self.dim != self.heads * self.head_size:
            raise ConfigError(f"--dim {self.dim} is not --heads {self.heads} times --head-size {self.head_size}.")
        if self.channels % self.heads:
            raise ConfigError(f"--dim {self.channels} is not divisible by --heads {self.heads}.")

    @property
    def channels(self) -> int:
        """The value of dim, given or derived from the heads."""
        return self.dim or (self.heads * self.head_size if self.head_size else 256)


@dataclass(frozen=True)
class ProfileStepConfig(SizeOptions):
    """Break down one training step: time per kernel, time per layer, and Python's time between kernels."""

    backend: BackendName = "numba"
    """Backend to measure."""
    threads: int = 0
    """Threads of the numba backend. 0: one per physical core."""
    seconds: float = 4.0
    """Minimum time to measure, in seconds; half of it without the instruments, to measure their overhead."""
    trace: FileName = ""
    """Write the last steps to this file in Trace Event format, for Perfetto or speedscope."""
    json: FileName = ""
    """Write the figures to this file as one JSON object."""

    def __post_init__(self) -> None:
        self.check_sizes()
        check_range(self, "threads", 0, 4096)
        check_seconds(self)


@dataclass(frozen=True)
class ProfileListConfig:
    """List the kernels with their formulas and costs."""


BENCHES: dict[str, type] = {
    "step": BenchStepConfig,
    "kernels": BenchKernelsConfig,
    "scaling": BenchScalingConfig,
    "contexts": BenchContextsConfig,
    "compare": BenchCompareConfig,
}
PROFILES: dict[str, type] = {"step": ProfileStepConfig, "list": ProfileListConfig}  # other words are kernels


def refuse_empty(arguments: Sequence[str], config: object) -> None:
    """Raise ConfigError for an option that takes any number of values but was given none."""
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        if following.startswith("--") and getattr(config, argument[2:].replace("-", "_"), None) == ():
            raise ConfigError(f"{argument} needs at least one value.")
