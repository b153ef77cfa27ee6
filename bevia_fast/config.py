"""Every option, declared once.

The command line is made from these dataclasses: a field's name is the option, its docstring the help text, its default
the default. Nothing here imports NumPy: `bevia-fast --help` has to answer at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import Positional, Suppress, arg

from .errors import ConfigError

__all__ = [
    "PRESETS", "AttentionConfig", "CheckConfig", "ConfigError", "DoctorConfig", "GenerateConfig", "ModelConfig",
    "ParametersConfig", "PresetName", "TrainConfig", "preset",
]  # fmt: skip

BackendName = Literal["numba", "numpy"]
PresetName = Literal["laptop", "seed", "baby", "long"]
_NONE = "(default: none)"
RunPath = Positional[Annotated[str, arg(metavar="RUN")]]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only transformer."""

    ctx: int = 64
    """Context length: how many characters the model looks back over."""
    dim: int = 128
    """Channels of the residual stream (the embedding size)."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; dim must be divisible by it. 1 is the single head."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Non-linearity of the MLP; gelu is the tanh form of GPT-2."""
    norm: Literal["pre", "post"] = "pre"
    """Layer normalisation before each branch (GPT-2) or after each residual sum (the original transformer)."""
    dropout: float = 0.0
    """Probability of dropping an element of the embeddings, the attention weights and the residual branches."""
    tie: bool = True
    """Let the output projection share the token embedding's weights."""
    bias: bool = True
    """Biases in linear layers and layer normalisations."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of weights and activations."""
    vocab_size: Annotated[int, Suppress] = 0
    """Distinct characters; found in the text."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name, most in (("ctx", 1 << 24), ("dim", 1 << 16), ("layers", 1 << 12), ("heads", 1 << 12)):
            _check_range(self, name, 1, most)
        if self.dim % self.heads:
            raise ConfigError(f"--dim {self.dim} is not divisible by --heads {self.heads}.")
        if not 0.0 <= self.dropout < 1.0:  # also refuses NaN
            raise ConfigError(f"--dropout is {self.dropout}; it must be at least 0 and less than 1.")
        _check_range(self, "vocab_size", 0, 1 << 21)  # Unicode has 1,114,112 code points

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The defaults are nanoGPT's recipe for a laptop's CPU."""

    data: Annotated[Sequence[str], arg(metavar="PATH ...", help_behavior_hint=_NONE)] = ()
    """Text to learn from, in UTF-8: files, folders (every *.txt below), or - for standard input. Without it: the
    language reference that comes with Python."""
    out: Annotated[str, arg(metavar="FOLDER", help_behavior_hint=_NONE)] = ""
    """Folder for the results; must not hold a run yet. Without it: the next free one of runs/1, runs/2, ..."""
    resume: Annotated[str, arg(metavar="RUN", help_behavior_hint=_NONE)] = ""
    """Go on with the run in this folder, from its newest whole checkpoint and with its options. Those of them that do
    not change what a step computes can be given anew, and --steps."""
    allow_changed_text: bool = False
    """Resume although the text is not the one that the run began with."""
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 1250
    """Optimiser steps."""
    batch: int = 12
    """Sequences in a batch, each ctx characters long."""
    accumulate: int = 1
    """Batches whose gradients are added up for one optimiser step."""
    lr: float = 1e-3
    """Learning rate at its highest, at the end of the warmup."""
    min_lr: float = 1e-4
    """Learning rate at the last step; it falls to it along a cosine."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0 to lr."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW, on matrices only."""
    beta1: float = 0.9
    """Decay of AdamW's running mean of gradients."""
    beta2: float = 0.99
    """Decay of AdamW's running mean of squared gradients."""
    eps: float = 1e-8
    """What AdamW adds to the root of the second moment."""
    grad_clip: float = 1.0
    """Largest global norm of the gradient; a longer one is scaled down to it. 0: no clipping."""
    eval_every: int = 250
    """Steps between evaluations on the validation split, the last tenth of the text."""
    eval_batches: int = 0
    """Batches of an evaluation, spread over the split; a number that is too large means all of it. 0: the whole split,
    or about 262,144 characters of a longer one."""
    sample_every: int = 500
    """Steps between short samples. 0: none but the one at the end."""
    crosscheck_every: int = 0
    """Steps between cross-checks, in which the other backend recomputes loss and gradients. 0: never."""
    save_every: int = 250
    """Steps between checkpoints; there is one at the end in any case. 0: only those of --save-seconds."""
    save_seconds: float = 120.0
    """Seconds after which a checkpoint is written all the same; more where the disk is so slow that this would take
    more than a twenty-fifth of the time. 0: only those of --save-every."""
    keep: int = 2
    """Checkpoints to keep; older ones are removed when a new one is whole."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do when loss or gradient are not finite: stop, or skip the step and count it."""
    recompute: bool = False
    """Keep only the input of each layer, and compute layers again on the way back: larger contexts fit into memory, a
    step takes up to a third longer, and every bit stays the same."""
    ignore_memory: bool = False
    """Begin although less memory is free than `bevia-fast plan` says that this takes."""
    backend: BackendName = "numba"
    """Kernels to compute with: numba is compiled and parallel, numpy is the readable reference."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""
    seed: int = 1337
    """Start of everything random: weights, order of batches, dropout, samples."""

    def __post_init__(self) -> None:
        if isinstance(self.data, str | os.PathLike):  # a natural slip; a string is a sequence of strings too
            object.__setattr__(self, "data", (self.data,))
        object.__setattr__(self, "data", tuple(str(path) for path in self.data))
        for name in ("out", "resume"):
            object.__setattr__(self, name, str(getattr(self, name)))
        _check_types(self)
        for name, least, most in (
            ("steps", 1, 1 << 40), ("batch", 1, 1 << 20), ("accumulate", 1, 1 << 20), ("warmup", 0, 1 << 40),
            ("eval_every", 1, 1 << 40), ("eval_batches", 0, 1 << 40), ("sample_every", 0, 1 << 40),
            ("crosscheck_every", 0, 1 << 40), ("save_every", 0, 1 << 40), ("keep", 1, 1 << 20),
            ("threads", 0, 4096), ("seed", 0, (1 << 63) - 1),
        ):  # fmt: skip
            _check_range(self, name, least, most)
        for name in ("lr", "eps"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{option_name(name)} is {value}; it must be a finite number greater than 0.")
        for name in ("weight_decay", "grad_clip", "save_seconds"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{option_name(name)} is {value}; it must be a finite number, at least 0.")
        if not 0.0 <= self.min_lr <= self.lr:
            raise ConfigError(f"--min-lr is {self.min_lr}; it must be from 0 to --lr, which is {self.lr}.")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"{option_name(name)} is {value}; it must be at least 0 and less than 1.")


@dataclass(frozen=True)
class GenerateConfig:
    """Write text with a trained model, character by character."""

    run: RunPath
    """Run folder, or model.safetensors file."""
    prompt: Annotated[str, arg(metavar="TEXT", help_behavior_hint=_NONE)] = ""
    """Text to go on from. Without it: a new line."""
    length: int = 500
    """Characters to write; may be far more than the context."""
    temperature: float = 0.8
    """Below 1 sharpens the distribution, above 1 flattens it; 0 always takes the likeliest character."""
    top_k: int = 0
    """Draw from the k likeliest characters only. 0: from all."""
    top_p: float = 1.0
    """Draw from the fewest characters that together have at least this probability."""
    seed: int = 1337
    """Start of the random draws; the same seed writes the same text."""
    backend: BackendName = "numba"
    """Kernels to compute with."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name, least, most in (
            ("length", 1, 1 << 40), ("top_k", 0, 1 << 21), ("seed", 0, (1 << 63) - 1), ("threads", 0, 4096),
        ):  # fmt: skip
            _check_range(self, name, least, most)
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"--temperature is {self.temperature}; it must be a finite number, at least 0.")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"--top-p is {self.top_p}; it must be greater than 0 and at most 1.")


@dataclass(frozen=True)
class CheckConfig:
    """Show that the two backends agree: every kernel on awkward shapes, then the training of a small model."""

    quick: bool = False
    """Fewer shapes and fewer training steps."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        _check_range(self, "threads", 0, 4096)


@dataclass(frozen=True)
class DoctorConfig:
    """Look at this machine and this installation, measure what the machine can do, and compile the kernels."""

    measure: bool = True
    """Measure what arithmetic and memory reach, which takes some seconds."""
    float64: bool = False
    """Compile the kernels for float64 as well."""
    clean: bool = False
    """Remove what was compiled by other versions, or for another CPU."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        _check_range(self, "threads", 0, 4096)


@dataclass(frozen=True)
class AttentionConfig:
    """Draw where each layer and head of a model looks, as one picture."""

    run: RunPath
    """Run folder, or model.safetensors file."""
    prompt: Annotated[str, arg(metavar="TEXT")]
    """Text to look at, at most as long as the context."""
    out: Annotated[str, arg(metavar="FILE", help_behavior_hint=_NONE)] = ""
    """Picture to write. Without it: attention.png in the run folder."""
    backend: BackendName = "numpy"
    """Kernels to compute with."""


@dataclass(frozen=True)
class ParametersConfig:
    """Print the names, shapes and counts of a model's weights."""

    run: Positional[Annotated[str, arg(metavar="[RUN]", help_behavior_hint="")]] = ""
    """Run folder, or model.safetensors file. Without it: the model that the options describe."""
    model: ModelConfig = field(default_factory=ModelConfig)
    vocab_size: int = 65
    """Distinct characters of the text; tiny Shakespeare has 65."""

    def __post_init__(self) -> None:
        _check_range(self, "vocab_size", 1, 1 << 21)
        if self.run and replace(self, run="") != ParametersConfig():
            raise ConfigError(f"{self.run} has its own sizes; others cannot be given beside it.")


# What a preset changes; the rest stays as declared above.
PRESETS: dict[PresetName, dict[str, Any]] = {
    "laptop": {},
    "seed": {"dim": 64, "layers": 1, "heads": 1, "batch": 8},
    "baby": {"ctx": 256, "dim": 384, "layers": 6, "heads": 6, "batch": 16},
    "long": {"ctx": 2048, "dim": 256, "batch": 2},
}


def preset(name: PresetName, **changes: Any) -> TrainConfig:
    """The training options of a preset, with changes to any field of TrainConfig or ModelConfig.

    `preset("seed", steps=200, heads=2)`. A `model` given whole has the sizes that it has, and not the preset's. Raises
    ConfigError for an unknown preset or option.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    sizes = {f.name for f in fields(ModelConfig)}
    given = {key: value for key, value in PRESETS[name].items() if key not in sizes or "model" not in changes}
    wanted = {**given, **changes}
    model = {key: wanted.pop(key) for key in sizes & wanted.keys()}
    unknown = wanted.keys() - {f.name for f in fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"There is no option {sorted(unknown)[0]!r}.")
    base = wanted.pop("model", ModelConfig())
    return TrainConfig(model=replace(base, **model), **wanted)


def option_name(name: str) -> str:
    """How a field is called on the command line."""
    return "--" + name.replace("_", "-")


def _check_range(config: Any, name: str, least: int, most: int) -> None:
    value = getattr(config, name)
    if not least <= value <= most:
        raise ConfigError(f"{option_name(name)} is {value:,}; it must be from {least:,} to {most:,}.")


def _check_types(config: Any) -> None:
    """The command line checks types itself; this is for Python callers and for what is read from a file."""
    for name, hint in get_type_hints(type(config)).items():
        value, wanted = getattr(config, name), get_args(hint)
        if wanted and isinstance(wanted[0], str):
            if value not in wanted:
                raise ConfigError(f"{option_name(name)} is {value!r}; it must be one of {', '.join(wanted)}.")
        elif hint in (int, bool):
            if type(value) is not hint:
                kind = "an integer" if hint is int else "True or False"
                raise ConfigError(f"{option_name(name)} is {value!r}; it must be {kind}.")
        elif hint is float and type(value) not in (float, int):
            raise ConfigError(f"{option_name(name)} is {value!r}; it must be a number.")
