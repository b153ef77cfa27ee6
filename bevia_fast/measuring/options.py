"""The options of `bench` and `profile`, each declared once; see `config` for how the command line is made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..config import BackendName, ModelConfig
from ..errors import ConfigError
from .option_groups import (
    NONE,
    DtypeName,
    FileName,
    OverName,
    PeerOptions,
    SizeOptions,
    TimingOptions,
    TurnOptions,
    check_range,
    check_seconds,
)


@dataclass(frozen=True)
class BenchStepConfig(SizeOptions, TurnOptions, PeerOptions):
    """Time whole training steps: the backends in turns, and PyTorch beside them if asked for."""

    def __post_init__(self) -> None:
        self.check_sizes()
        self.check_timing()


@dataclass(frozen=True)
class BenchKernelsConfig(TurnOptions):
    """Time each kernel, forward and backward, over a spread of sizes."""

    only: Annotated[tuple[str, ...], arg(metavar="KERNEL ...", help_behavior_hint=NONE)] = ()
    """Only these; `profile list` names them. Without it: all."""
    dtype: DtypeName = "float32"
    """Floating-point type of the arrays."""
    quick: bool = False
    """Only the first size of each."""
    cold: bool = False
    """Empty the caches before each call."""
    seconds: float = 0.5
    """Seconds of measuring for each kernel, size and backend, at least."""

    def __post_init__(self) -> None:
        self.check_timing()


@dataclass(frozen=True)
class BenchScalingConfig(SizeOptions, TurnOptions, PeerOptions):
    """Time whole training steps while one size grows: a table and a picture."""

    over: OverName = "ctx"
    """What grows."""
    values: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint=NONE)] = ()
    """Its values. Without it: four, each twice the one before; or all numbers of threads up to the cores."""
    out: Annotated[str, arg(metavar="FILE")] = "scaling.png"
    """Picture to write."""

    def __post_init__(self) -> None:
        self.check_sizes()
        self.check_timing()
        if self.over == "threads" and self.threads:
            raise ConfigError("--over threads takes the numbers of threads from --values, not from --threads.")
        if self.over != "threads" and len(self.threads) > 1:
            raise ConfigError(f"--over {self.over} goes with one number of --threads; there are {len(self.threads)}.")
        for value in self.values:
            if value < 1:
                raise ConfigError(f"--values has {value}; each must be at least 1.")
            if self.over != "threads":
                self.at(value)  # raises ConfigError where no model has that size

    def at(self, value: int) -> BenchStepConfig:
        """One point of the curve."""
        options = {field.name: getattr(self, field.name) for field in fields(BenchStepConfig)}
        changes: dict[str, Any] = {"threads": (value,)} if self.over == "threads" else {self.over: value}
        return BenchStepConfig(**options | changes)


@dataclass(frozen=True)
class BenchContextsConfig(TimingOptions, PeerOptions):
    """Measure memory and time of a training step while the context grows, with --recompute too: a table and a
    picture. Each point is a process of its own."""

    dim: int = 128
    """Channels of the residual stream."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 2
    """Attention heads; dim must be divisible by it."""
    batch: int = 1
    """Sequences in a batch."""
    vocab: int = 65
    """Distinct tokens."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and activations."""
    values: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint=NONE)] = ()
    """Contexts. Without it: 512, 1,024, ... 65,536."""
    limit: float = 120.0
    """Seconds that a step may take, at most; what would take longer is left out."""
    seconds: float = 2.0
    """Seconds of measuring for each point, and three steps, at least; one step if it takes longer than 10 seconds."""
    out: Annotated[str, arg(metavar="FILE")] = "contexts.png"
    """Picture to write."""

    def __post_init__(self) -> None:
        check_range(self, "batch", 1, 1 << 20)
        check_range(self, "vocab", 1, 1 << 21)
        self.check_timing()
        if len(self.threads) > 1:
            raise ConfigError(f"bench contexts goes with one number of --threads; there are {len(self.threads)}.")
        if self.dtype != "float32" and "torch-bf16" in self.peers():
            raise ConfigError("--peer torch-bf16 goes with --dtype float32; take torch-eager.")
        if not 0.0 < self.limit <= 86400.0:
            raise ConfigError(f"--limit is {self.limit}; it must be greater than 0 and at most 86,400.")
        for value in self.contexts():
            if value < 1:
                raise ConfigError(f"--values has {value}; each must be at least 1.")
            self.at(value)  # raises ConfigError where no model has that size

    def contexts(self) -> tuple[int, ...]:
        """From the shortest to the longest."""
        return tuple(sorted(set(self.values))) or tuple(512 << power for power in range(8))

    def at(self, ctx: int) -> ModelConfig:
        """The model of one point."""
        return ModelConfig(
            ctx=ctx, dim=self.dim, layers=self.layers, heads=self.heads, dtype=self.dtype, vocab_size=self.vocab
        )


@dataclass(frozen=True)
class BenchCompareConfig:
    """Lay two files of results side by side, such as from two machines."""

    a: Positional[Annotated[str, arg(metavar="A.JSON", help_behavior_hint="(required)")]] = ""
    """Results to compare with."""
    b: Positional[Annotated[str, arg(metavar="B.JSON", help_behavior_hint="(required)")]] = ""
    """Results to compare."""

    def __post_init__(self) -> None:
        if not self.a or not self.b:
            raise ConfigError("Name two files of results, as in: bevia-fast bench compare a.json b.json")


@dataclass(frozen=True)
class ProfileKernelConfig:
    """Measure single kernels against what this machine can do. Instead of a kernel, `profile list` names them all,
    `profile all` takes them all, and `profile step` takes a training step apart."""

    kernels: Positional[Annotated[tuple[str, ...], arg(metavar="KERNEL ...")]]
    """Which: attention for both directions, attention_forward for one."""
    ctx: int = 1024
    """Positions in a sequence."""
    batch: int = 1
    """Sequences in a batch."""
    heads: int = 4
    """Attention heads."""
    head_size: int = 0
    """Channels of a head. 0: dim / heads."""
    dim: int = 0
    """Channels. 0: heads x head-size, or 256."""
    out_dim: int = 0
    """Output channels of linear. 0: 4 x dim."""
    vocab: int = 65
    """Distinct tokens, for embedding and cross_entropy."""
    parameters: int = 0
    """Numbers that adamw updates. 0: 12 x dim x dim, those of one layer."""
    dtype: DtypeName = "float32"
    """Floating-point type of the arrays."""
    backend: tuple[BackendName, ...] = ("numpy", "numba")
    """Kernels to measure."""
    threads: int = 0
    """Threads. 0: one for each physical core."""
    seconds: float = 1.0
    """Seconds of measuring for each, at least."""
    cold: bool = False
    """Empty the caches before each call."""
    asm: bool = False
    """Show the hot loop as the machine sees it: instruction set, vector width, FMAs, loads, spills."""
    out: Annotated[str, arg(metavar="FILE")] = "roofline.png"
    """Picture to write."""
    json: FileName = ""
    """Add the results to the list in this file, one object for each."""

    def __post_init__(self) -> None:
        if self.asm and "numba" not in self.backend:
            raise ConfigError("--asm shows what Numba compiles; it does not go with --backend numpy.")
        if not self.kernels:
            raise ConfigError("Name a kernel, such as attention; bevia-fast profile list has them all.")
        most = 1 << 24
        for name, least in (("ctx", 1), ("batch", 1), ("heads", 1), ("head_size", 0), ("dim", 0), ("out_dim", 0),
                            ("vocab", 1), ("parameters", 0)):  # fmt: skip
            check_range(self, name, least, most if name != "parameters" else 1 << 34)
        check_range(self, "threads", 0, 4096)
        if not self.backend:
            raise ConfigError("--backend names no backend; there are numpy and numba.")
        check_seconds(self)
        if self.dim and self.head_size and self.dim != self.heads * self.head_size:
            raise ConfigError(f"--dim {self.dim} is not --heads {self.heads} times --head-size {self.head_size}.")
        if self.channels % self.heads:
            raise ConfigError(f"--dim {self.channels} is not divisible by --heads {self.heads}.")

    @property
    def channels(self) -> int:
        """dim, given or derived."""
        return self.dim or (self.heads * self.head_size if self.head_size else 256)


@dataclass(frozen=True)
class ProfileStepConfig(SizeOptions):
    """Take one training step apart: time by kernel and by layer, and Python's time between kernels."""

    backend: BackendName = "numba"
    """Kernels to compute with."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""
    seconds: float = 4.0
    """Seconds of measuring, at least; half of it without the instruments, to know what they cost."""
    trace: FileName = ""
    """Write the last steps there in Trace Event format, for Perfetto or speedscope."""
    json: FileName = ""
    """Write the figures there, as one object."""

    def __post_init__(self) -> None:
        self.check_sizes()
        check_range(self, "threads", 0, 4096)
        check_seconds(self)


@dataclass(frozen=True)
class ProfileListConfig:
    """Name the kernels, with their formula and their cost."""


BENCHES: dict[str, type] = {
    "step": BenchStepConfig,
    "kernels": BenchKernelsConfig,
    "scaling": BenchScalingConfig,
    "contexts": BenchContextsConfig,
    "compare": BenchCompareConfig,
}
PROFILES: dict[str, type] = {"step": ProfileStepConfig, "list": ProfileListConfig}  # anything else is a kernel


def refuse_empty(arguments: Sequence[str], config: object) -> None:
    """Raises ConfigError for an option that takes any number of values and was given none."""
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        if following.startswith("--") and getattr(config, argument[2:].replace("-", "_"), None) == ():
            raise ConfigError(f"{argument} is given, and nothing follows it.")
