"""The options of `bench` and `profile`, each declared once; the command line is generated from them, see `config`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..config import STANDARD, BackendName, ModelConfig, check_range, picture_format
from ..errors import ConfigError
from .loss_options import BenchLossConfig
from .option_groups import (
    DtypeName,
    FileName,
    OverName,
    PeerOptions,
    PictureName,
    SizeOptions,
    TimingOptions,
    TurnOptions,
    check_seconds,
    is_own,
)

SMALL = {"ctx": 64, "batch": 12, "heads": 4, "dim": 128, "vocab": 65}  # the laptop preset


@dataclass(frozen=True)
class BenchStepConfig(SizeOptions, TurnOptions, PeerOptions):
    """Time whole training steps. The backends take turns, and so does PyTorch if --peer asks for it."""

    def __post_init__(self) -> None:
        self.check_sizes()
        self.check_timing()


@dataclass(frozen=True)
class BenchKernelsConfig(TurnOptions):
    """Time every kernel, forward and backward, at a small, a medium and a large size, or at the size of a run or of the
    options."""

    run: Positional[Annotated[str, arg(metavar="[RUN]", help_behavior_hint="")]] = ""
    """Run folder or model.safetensors file whose sizes to take; the options change them."""
    ctx: int = 0
    """Context length. 0: from the run; if no size is given, the three sizes; otherwise 64, and so below."""
    batch: int = 0
    """Sequences per batch. 0: likewise, 12."""
    heads: int = 0
    """Attention heads. 0: likewise, 4."""
    dim: int = 0
    """Channels; must be divisible by heads. 0: likewise, 128."""
    vocab: int = 0
    """Vocabulary size. 0: likewise, 65."""
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
        for name in ("ctx", "batch", "heads", "dim", "vocab"):
            check_range(self, name, 0, 1 << 24)
        sizes = self.sizes()
        if sizes and sizes["dim"] % sizes["heads"]:
            raise ConfigError(f"--dim {sizes['dim']} is not divisible by --heads {sizes['heads']}.")
        if sizes and self.quick:
            raise ConfigError("--quick chooses the small one of the three sizes; omit it where a size is given.")

    def sizes(self) -> dict[str, int]:
        """Return the one size to measure; an empty dictionary stands for the three sizes."""
        given = {name: value for name in ("ctx", "batch", "heads", "dim", "vocab") if (value := getattr(self, name))}
        if self.run:
            from .run_sizes import run_config

            base = run_config(self.run)
            model = base.model
            return {"ctx": model.ctx, "batch": base.batch, "heads": model.heads, "dim": model.dim,
                    "vocab": model.vocab_size} | given  # fmt: skip
        return SMALL | given if given else {}


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
    out: PictureName = ""
    """Picture to write; its name ends in .png, .svg or .pdf. If omitted: scaling.png in the folder of the run, or in
    runs."""

    def __post_init__(self) -> None:
        picture_format(self.out)
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
    """Measure memory and time of a training step while the context grows, without and with --recompute, and with the
    window that is given. Prints a table and draws a picture. Each point runs in its own process."""

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
    window: int = 0
    """Also measure numba with this window of attention, in every second layer and in all. 0: without."""
    dtype: DtypeName = "float32"
    """Floating-point type of weights and activations."""
    values: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="(default: 512 1024 ... 65536)")] = ()
    """Context lengths."""
    limit: float = 120.0
    """Longest time that a step may take, in seconds; longer contexts are left out."""
    seconds: float = 2.0
    """Minimum time to measure each point, in seconds. At least three steps are timed, or one of more than 10 s."""
    out: PictureName = ""
    """Picture to write; its name ends in .png, .svg or .pdf. If omitted: contexts.png in the folder runs."""

    def __post_init__(self) -> None:
        picture_format(self.out)
        check_range(self, "batch", 1, 1 << 20)
        check_range(self, "vocab", 1, 1 << 21)
        check_range(self, "window", 0, 1 << 24)
        self.check_timing()
        if self.window and "numba" not in self.backend:
            raise ConfigError("--window measures the kernels of numba; add it to --backend, or omit --window.")
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
        if self.a == self.b == STANDARD:
            raise ConfigError("Only one file can be -, which stands for standard input.")
        if not self.a or not self.b:
            raise ConfigError("Name two results files, as in: bevia-fast bench compare a.json b.json")


@dataclass(frozen=True)
class ProfileKernelConfig:
    """Compare single kernels with the limits of this machine. `bevia-fast profile list` lists the kernels,
    `bevia-fast profile all` measures all of them, and `bevia-fast profile step` breaks down a training step.
    `bevia-fast profile mine.py:fast_gelu --like gelu_forward` measures a kernel of your own."""

    kernels: Positional[Annotated[tuple[str, ...], arg(metavar="KERNEL ...", help_behavior_hint="(required)")]]
    """Kernels to measure: attention for both directions, attention_forward for one, FILE.py:FUNCTION for your own."""
    like: Annotated[str, arg(metavar="KERNEL", help_behavior_hint="(default: the one with its name)")] = ""
    """What your own kernel computes. It is called with the same arguments as this kernel, by name, and checked."""
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
    """Parameters that adamw and muon update. 0: 12 x dim x dim, as in one layer."""
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
    all_loops: bool = False
    """With --asm, show the machine code of every hot loop and not only of that with the most FMAs of each kernel."""
    out: PictureName = ""
    """Picture to write; its name ends in .png, .svg or .pdf. If omitted: roofline.png in the folder runs."""
    json: FileName = ""
    """Append the results to the JSON list in this file, one object per result; - is standard output."""

    def __post_init__(self) -> None:
        picture_format(self.out)
        if self.asm and "numba" not in self.backend:
            raise ConfigError("--asm shows the machine code of numba; add numba to --backend.")
        if self.all_loops and not self.asm:
            raise ConfigError("--all-loops needs --asm.")
        if self.like and not any(is_own(name) for name in self.kernels):
            raise ConfigError("--like says what your own kernel computes, and none is named; name it FILE.py:FUNCTION.")
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
    """Write the last steps to this file in Trace Event format, for Perfetto or speedscope; - is standard output."""
    json: FileName = ""
    """Write the figures to this file as one JSON object; - is standard output."""

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
    "loss": BenchLossConfig,
    "compare": BenchCompareConfig,
}
PROFILES: dict[str, type] = {"step": ProfileStepConfig, "list": ProfileListConfig}  # other words are kernels


def refuse_unclear(arguments: Sequence[str], config: object) -> None:
    """Raise ConfigError for an option that takes any number of values but was given none, or for a preset beside a run,
    which has its own sizes."""
    if getattr(config, "run", "") and any(word.split("=")[0] == "--preset" for word in arguments):
        raise ConfigError("--preset cannot be combined with a run, which has its own sizes; name either.")
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        if following.startswith("--") and getattr(config, argument[2:].replace("-", "_"), None) == ():
            raise ConfigError(f"{argument} needs at least one value.")
