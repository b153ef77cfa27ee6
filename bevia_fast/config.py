"""Every option, declared once.

The command line is made from these dataclasses: a field's name is the option, its docstring the help text, its default
the default. `--help` keeps the line breaks of a field's docstring, so break it only between sentences. Nothing here
imports NumPy, so that `bevia-fast --help` answers at once.
"""

from __future__ import annotations

import codecs
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Annotated, Any, Literal, get_args, get_type_hints

from tyro.conf import Positional, Suppress, arg

from .errors import ConfigError, escaped, shown
from .naming import option
from .recipes import RecipeName, recipe_options
from .stages import Stage, refuse_endless, stages

__all__ = [
    "PRESETS", "AttentionConfig", "CheckConfig", "ConfigError", "DoctorConfig", "ExploreConfig", "ExportConfig",
    "GenerateConfig", "ImportConfig", "LabConfig", "ModelConfig", "OptimizerName", "ParametersConfig", "PlaybookConfig",
    "PlotConfig", "PositionsName", "PrecisionName", "PresetName", "RunsConfig", "TrainConfig", "WindowLayers", "preset",
]  # fmt: skip

BackendName = Literal["numba", "numpy"]
OptimizerName = Literal["adamw", "muon"]
PositionsName = Literal["learned", "rotary"]
PrecisionName = Literal["float32", "bf16"]
PresetName = Literal["tiny", "laptop", "baby", "long"]
WindowLayers = Literal["alternate", "odd", "all"]
SortName = Literal["name", "parameters", "steps", "loss", "bits", "minutes", "date"]
LossUnit = Literal["nats", "bits"]
AxisName = Literal["steps", "tokens", "minutes"]
OLD_PRESETS: dict[str, PresetName] = {"seed": "tiny"}  # earlier names, which were too easy to take for --seed
BEST_ONE, LAST_ONE = "best", "last"  # models of a run that have a name; the others are named by their step
NONE = ""  # what help shows where the default is empty: the description says it
NOT_ENCODINGS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape"}  # Python's codecs of notations in ASCII
LONGEST_NAME = 200  # bytes of the name of a run; file systems allow 255
CHARACTERS, BYTE_TOKENS, LEARNED = "chars", "bytes", "bpe:"  # values of --tokens; the last one begins like this
MOST_LEARNED = 1 << 21  # as many as a model may have
RunPath = Positional[Annotated[str, arg(metavar="RUN")]]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only transformer."""

    ctx: int = 64
    """Context length: how many tokens the model sees at once; usually, these are characters."""
    dim: int = 128
    """Channels of the residual stream (embedding size)."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; dim must be divisible by their number."""
    activation: Literal["gelu", "gelu_erf", "relu"] = "gelu"
    """Nonlinearity of the MLP; gelu is GPT-2's tanh approximation, gelu_erf the exact form (BERT, GPT-NeoX)."""
    norm: Literal["pre", "post"] = "pre"
    """Layer normalization before each branch (GPT-2) or after each residual sum (the original transformer)."""
    positions: PositionsName = "learned"
    """Positions as learned vectors, one for each (GPT-2), or as rotations of queries and keys (RoFormer, GPT-NeoX)."""
    window: int = 0
    """Sliding window: attention sees the last so many tokens only, which takes time that is linear in --ctx.
    0: all tokens of the context."""
    window_layers: WindowLayers = "alternate"
    """Layers with the window: all, or every second one, beginning with the first (alternate, as in GPT-3) or with the
    second (odd, as in GPT-Neo)."""
    dropout: float = 0.0
    """Dropout probability for the embeddings, the attention weights and the residual branches."""
    tie: bool = True
    """Share the weights of the token embedding with the output projection."""
    bias: bool = True
    """Use biases in linear layers and layer normalizations."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of weights and activations."""
    precision: PrecisionName = "float32"
    """Operands of matrix products: as they are, or rounded to bfloat16, which CPUs with AVX512_BF16 multiply at twice
    the rate. Sums, norms, softmax, gradients and weights stay in float32."""
    vocab_size: Annotated[int, Suppress] = 0
    """Number of different tokens; taken from the text."""
    scale: Annotated[bool, Suppress] = True
    """Divide attention scores by the square root of the head size. False: an experiment of the lab."""
    residual: Annotated[bool, Suppress] = True
    """Add the branches of a layer to the stream, instead of replacing it. False: an experiment of the lab."""

    def __post_init__(self) -> None:
        _check_types(self)
        for name, most in (("ctx", 1 << 24), ("dim", 1 << 16), ("layers", 1 << 12), ("heads", 1 << 12)):
            check_range(self, name, 1, most)
        if self.dim % self.heads:
            raise ConfigError(f"{option('dim', self.dim)} is not divisible by {option('heads', self.heads)}.")
        check_range(self, "window", 0, 1 << 24)
        if self.positions == "rotary" and self.head_size % 2:
            raise ConfigError(
                f"{option('positions', self.positions)} rotates pairs of channels; a head has dim / heads = "
                f"{self.head_size} of them, which must be even."
            )
        if not 0.0 <= self.dropout < 1.0:  # also refuses NaN
            raise ConfigError(f"{option('dropout')} is {self.dropout}; it must be at least 0 and less than 1.")
        if self.precision == "bf16" and self.dtype != "float32":
            raise ConfigError(f"{option('precision', 'bf16')} needs {option('dtype', 'float32')}; it is {self.dtype}.")
        check_range(self, "vocab_size", 0, 1 << 21)  # Unicode has 1,114,112 code points

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads

    @property
    def windows(self) -> tuple[int, ...]:
        """How many positions attention sees in each layer, at most; 0 where it sees the whole context."""
        if not self.window or self.window >= self.ctx:
            return (0,) * self.layers
        without = {"alternate": 1, "odd": 0, "all": -1}[self.window_layers]  # layer % 2 of those that have none
        return tuple(0 if layer % 2 == without else self.window for layer in range(self.layers))


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The defaults follow nanoGPT's recipe for a laptop's CPU, at a higher learning rate."""

    data: Annotated[Sequence[str], arg(metavar="PATH ...", help_behavior_hint=NONE)] = ()
    """Text to train on: files (also compressed with gzip), folders, or - for standard input.
    If omitted: the language reference that comes with Python."""
    glob: Annotated[Sequence[str], arg(metavar="PATTERN ...", help_behavior_hint="(default: '*.txt' '*.txt.gz')")] = ()
    """Files to read in the folders of --data, at any depth and whatever the case of letters, such as '*.md'."""
    encoding: Annotated[str, arg(metavar="NAME")] = "utf-8"
    """Encoding of the text, such as cp1252, gb18030 or utf-16: any that Python knows."""
    newlines: Literal["keep", "lf"] = "keep"
    """What to make of the line ends of Windows and old Macs: keep them, or replace them with line feeds."""
    normalize: Literal["keep", "nfc"] = "keep"
    """Unicode normal form: keep the text, or compose letters and their marks into one character each (NFC)."""
    tokens: Annotated[str, arg(metavar="{chars,bytes,bpe:N,FILE}")] = "chars"
    """What a token is: a character, a byte, or one of N of a byte-pair encoding (BPE) that is learned from the text.
    FILE is the tokenizer.json of a BPE, or GPT-2's vocab.bpe; tiktoken:NAME an encoding of the package tiktoken."""
    out: Annotated[str, arg(metavar="FOLDER", help_behavior_hint=NONE)] = ""
    """Folder for the results; must not contain a run. If omitted: the next free one of runs/1, runs/2, ..."""
    name: Annotated[str, arg(metavar="NAME", help_behavior_hint=NONE)] = ""
    """Name of the run, which makes runs/NAME its folder; must be the name of a folder, without a path."""
    resume: Annotated[str, arg(metavar="RUN", help_behavior_hint=NONE)] = ""
    """Resume the run in this folder from its newest intact checkpoint, with its options.
    Only --steps and the options that do not affect what a step computes can be changed."""
    init: Annotated[str, arg(metavar="RUN", help_behavior_hint=NONE)] = ""
    """Start with the weights and the tokens of this run or model file, to fine-tune it on other text.
    The sizes of the model are those of the run; steps, learning rate and moments begin anew."""
    allow_changed_text: bool = False
    """Resume even if the text differs from the one that the run started with."""
    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 1250
    """Optimizer steps."""
    minutes: float = 0.0
    """Train for so many minutes: as many steps as a forecast says will fit, fixed at the start. 0: --steps.
    The run's options then have these steps and no minutes, so it can be repeated and resumed as it is."""
    batch: int = 12
    """Sequences per batch, each ctx tokens long."""
    accumulate: int = 1
    """Gradient accumulation: batches per optimizer step."""
    ctx_schedule: Annotated[str, arg(metavar="CTX:STEPS,...,CTX", help_behavior_hint=NONE)] = ""
    """Context warm-up, such as 256:1000,1024:2000,4096: the first 1000 steps on windows of 256, the next 2000 on 1024.
    A step has as many tokens in each stage. If omitted: all steps on windows of ctx."""
    optimizer: OptimizerName = "adamw"
    """AdamW for all weights, or Muon for the matrices of the layers and AdamW for the rest.
    A step with Muon takes longer, and a run reaches the same loss in far fewer of them."""
    lr: float = 4e-3
    """Peak learning rate, reached at the end of the warmup."""
    min_lr: float = 4e-4
    """Learning rate at the last step, at the end of the cosine decay."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly from 0 to lr."""
    muon_lr: float = 0.02
    """Muon's peak learning rate; it rises and falls in proportion to that of AdamW."""
    muon_momentum: float = 0.95
    """Muon's decay rate for the running mean of gradients."""
    weight_decay: float = 0.1
    """Decoupled weight decay, applied to matrices only."""
    beta1: float = 0.9
    """AdamW's decay rate for the running mean of gradients."""
    beta2: float = 0.99
    """AdamW's decay rate for the running mean of squared gradients."""
    eps: float = 1e-8
    """Added by AdamW to the square root of the second moment, for numerical stability."""
    grad_clip: float = 1.0
    """Clip the gradient to this global norm. 0: no clipping."""
    eval_every: int = 250
    """Steps between evaluations on the validation split, the last tenth of the text."""
    eval_batches: int = 0
    """Batches per evaluation, spread over the validation split; if the split has fewer, all of it is evaluated.
    0: the whole split, or about 262,144 tokens of a longer one."""
    sample_every: int = 500
    """Steps between short samples. 0: only one, at the end."""
    crosscheck_every: int = 0
    """Steps between cross-checks, in which the other backend recomputes loss and gradients. 0: never."""
    save_every: int = 250
    """Steps between checkpoints; one is always written at the end. 0: only as --save-seconds says."""
    save_seconds: float = 120.0
    """Seconds after which a checkpoint is written in any case. 0: only as --save-every says.
    On a slow disk the interval grows, so that saving takes at most 4 % of the time."""
    keep: int = 2
    """Checkpoints to keep; older ones are removed once a new one is complete."""
    film: int = 16
    """Steps whose weights are kept, for bevia-fast explore to show how the model came about.
    They include the first and the last, and are closer together at the beginning. 0: none."""
    patience: int = 0
    """Stop after so many evaluations without a better validation loss (early stopping). 0: never."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do if the loss or the gradient is not finite: stop, or skip the step and count it."""
    recompute: bool = False
    """Keep only the input of each layer and recompute the rest in the backward pass (gradient checkpointing).
    Larger contexts fit into memory, a step takes up to a third longer, and the result has the same bits."""
    ignore_memory: bool = False
    """Start even if less memory is free than the run needs according to `bevia-fast plan`."""
    backend: BackendName = "numba"
    """Kernels to compute with: numba is compiled and parallel, numpy is the readable reference."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""
    seed: int = 1337
    """Random seed of the weights, the order of batches, dropout and samples."""
    bias_correction: Annotated[bool, Suppress] = True
    """Let AdamW divide its moments by 1 - beta^step. False: an experiment of the lab."""

    def __post_init__(self) -> None:
        for name, kind in (("data", "paths"), ("glob", "patterns")):
            object.__setattr__(self, name, _texts(name, getattr(self, name), kind))
        object.__setattr__(self, "encoding", _encoding_name(self.encoding))
        for name in ("out", "resume", "init", "tokens"):
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, str(getattr(self, name)))
        if not isinstance(self.model, ModelConfig):
            raise ConfigError(f"{option('model')} is {shown(repr(self.model), 60)}; it must be a ModelConfig.")
        _check_types(self)
        _check_run_name(self.name)
        tokens_to_learn(self.tokens)  # raises for a wrong number
        for other in ("out", "resume"):
            if self.name and getattr(self, other):
                raise ConfigError(f"{option('name')} cannot be combined with {option(other)}, which names the folder.")
        for name, least, most in (
            ("steps", 1, 1 << 40), ("batch", 1, 1 << 20), ("accumulate", 1, 1 << 20), ("warmup", 0, 1 << 40),
            ("eval_every", 1, 1 << 40), ("eval_batches", 0, 1 << 40), ("sample_every", 0, 1 << 40),
            ("crosscheck_every", 0, 1 << 40), ("save_every", 0, 1 << 40), ("keep", 1, 1 << 20),
            ("film", 0, 1 << 10), ("patience", 0, 1 << 40), ("threads", 0, 4096), ("seed", 0, (1 << 63) - 1),
        ):  # fmt: skip
            check_range(self, name, least, most)
        if self.ctx_schedule:
            # with minutes, the steps are not known yet
            most = 1 << 60 if self.minutes else self.steps
            refuse_endless(self.ctx_schedule, self.model.ctx, self.batch, most)
        for name in ("lr", "muon_lr", "eps"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{option(name)} is {value}; it must be a finite number greater than 0.")
        for name in ("weight_decay", "grad_clip", "save_seconds", "minutes"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{option(name)} is {value}; it must be a finite number, at least 0.")
        if self.minutes and self.resume:
            raise ConfigError(
                f"{option('minutes')} is for a new run; {self.resume} has its number of steps, which {option('steps')} "
                "changes."
            )
        if self.minutes and self.steps != TrainConfig.steps:
            raise both_steps_and_minutes()
        if not 0.0 <= self.min_lr <= self.lr:
            raise ConfigError(
                f"{option('min_lr')} is {self.min_lr}; it must be from 0 to {option('lr')}, which is {self.lr}."
            )
        for name in ("beta1", "beta2", "muon_momentum"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"{option(name)} is {value}; it must be at least 0 and less than 1.")


    @property
    def stages(self) -> list[Stage]:
        """The stages of the context warm-up; without one, the whole run is one stage."""
        return stages(self.ctx_schedule, self.model.ctx, self.batch)


@dataclass(frozen=True)
class GenerateConfig:
    """Write text with a trained model, token by token."""

    run: RunPath
    """Run folder, model.safetensors file or checkpoint."""
    prompt: Annotated[str, arg(metavar="TEXT", help_behavior_hint=NONE)] = ""
    """Text to continue; - reads it from standard input. If omitted: a new line."""
    length: int = 500
    """Tokens to write, which usually are characters; may exceed the context length by far."""
    temperature: float = 0.8
    """Below 1 sharpens the distribution, above 1 flattens it; 0 always takes the most likely token."""
    top_k: int = 0
    """Sample from the k most likely tokens only. 0: from all."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with at least this total probability (nucleus sampling)."""
    seed: int = 1337
    """Random seed; the same seed writes the same text."""
    backend: BackendName = "numba"
    """Kernels to compute with."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""
    checkpoint: Annotated[str, arg(metavar="{best,last,STEP}")] = BEST_ONE
    """Which of the run's models: that of the best validation loss, the last one, or that of a step.
    The steps are those of the film and of the checkpoints."""

    def __post_init__(self) -> None:
        _check_types(self)
        check_checkpoint(self.checkpoint)
        for name, least, most in (
            ("length", 1, 1 << 40), ("top_k", 0, 1 << 21), ("seed", 0, (1 << 63) - 1), ("threads", 0, 4096),
        ):  # fmt: skip
            check_range(self, name, least, most)
        if not 0.0 <= self.temperature < math.inf:
            raise ConfigError(f"{option('temperature')} is {self.temperature}; it must be a finite number, at least 0.")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"{option('top_p')} is {self.top_p}; it must be greater than 0 and at most 1.")


@dataclass(frozen=True)
class CheckConfig:
    """Check that the two backends agree, on every kernel and in training."""

    quick: bool = False
    """Fewer shapes and fewer training steps."""
    gradients: Annotated[str, arg(metavar="FILE.py", help_behavior_hint=NONE)] = ""
    """Instead, compare backward passes with finite differences: the functions NAME_forward and NAME_backward in a file
    of yours, or all kernels of numpy or numba."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        check_range(self, "threads", 0, 4096)
        if self.gradients and self.quick:
            raise ConfigError(f"{option('quick', True)} cannot be combined with {option('gradients')}, which is quick.")


@dataclass(frozen=True)
class DoctorConfig:
    """Measure this machine, check this installation, and compile the kernels."""

    measure: bool = True
    """Measure arithmetic peak and memory bandwidth, which takes a few seconds."""
    float64: bool = False
    """Compile the kernels for float64 too."""
    clean: bool = False
    """Remove code that other versions compiled, or that was compiled for another CPU."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        check_range(self, "threads", 0, 4096)


@dataclass(frozen=True)
class AttentionConfig:
    """Draw the attention weights of layers and heads, as one picture."""

    run: RunPath
    """Run folder, model.safetensors file or checkpoint."""
    prompt: Annotated[str, arg(metavar="TEXT")]
    """Text to draw the attention of, at most as long as the context; - reads it from standard input."""
    layer: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="(default: all)")] = ()
    """Layers to draw, counted from 0 as in the names of the weights: h.0 is layer 0."""
    head: Annotated[tuple[int, ...], arg(metavar="INT ...", help_behavior_hint="(default: all)")] = ()
    """Heads to draw, counted from 0."""
    out: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Picture to write; its name ends in .png, .svg or .pdf. If omitted: attention.png in the run folder."""
    checkpoint: Annotated[str, arg(metavar="{best,last,STEP}")] = BEST_ONE
    """Which of the run's models: that of the best validation loss, the last one, or that of a step.
    The steps are those of the film and of the checkpoints."""
    backend: BackendName = "numpy"
    """Kernels to compute with."""

    def __post_init__(self) -> None:
        picture_format(self.out)
        check_checkpoint(self.checkpoint)


@dataclass(frozen=True)
class ExploreConfig:
    """Make a page on which any browser shows how a trained model works."""

    run: RunPath
    """Run folder, model.safetensors file or checkpoint."""
    prompt: Annotated[tuple[str, ...], arg(metavar="TEXT ...", help_behavior_hint=NONE)] = ()
    """Texts to look at, each at most as long as the context; - reads one from standard input.
    If omitted: three pieces of the run's validation text."""
    out: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Page to write, - for standard output. If omitted: explorer.html in the run folder."""
    open: bool = False
    """Open the page in the browser."""
    half: bool = False
    """Store the numbers in half precision, for a page of about half the size."""
    serve: bool = False
    """Serve the page to the browsers of this machine until Ctrl-C, whatever its size.
    Without --out, no file is written."""
    checkpoint: Annotated[str, arg(metavar="{best,last,STEP}")] = BEST_ONE
    """Which of the run's models: that of the best validation loss, the last one, or that of a step.
    The steps are those of the film and of the checkpoints."""
    backend: BackendName = "numpy"
    """Kernels to compute with."""

    def __post_init__(self) -> None:
        check_checkpoint(self.checkpoint)


@dataclass(frozen=True)
class ExportConfig:
    """Write a trained model so that other programs open it."""

    run: RunPath
    """Run folder, model.safetensors file or checkpoint."""
    to: Annotated[str, arg(metavar="PATH", help_behavior_hint=NONE)] = ""
    """Folder to write, which must be new or empty, or with --format gguf or onnx a new file."""
    format: Literal["hf", "gguf", "onnx"] = "hf"
    """A folder for Hugging Face's transformers, one file for llama.cpp, or one for onnxruntime and its like.
    The files need the package gguf or onnx."""

    def __post_init__(self) -> None:
        if not self.to:
            raise ConfigError(f"{option('to')} needs the name of what to write.")


@dataclass(frozen=True)
class ImportConfig:
    """Make a run of a model that another program trained."""

    source: Positional[Annotated[str, arg(metavar="SOURCE")]]
    """Folder of Hugging Face's transformers (GPT-2, GPT-NeoX, GPT-Neo), ckpt.pt of nanoGPT, or .bin of llm.c."""
    out: Annotated[str, arg(metavar="FOLDER", help_behavior_hint=NONE)] = ""
    """Folder of the run, which must be new or empty."""
    vocabulary: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Characters of the tokens: a meta.pkl of nanoGPT, a tokenizer.json, or a text that has all of them.
    If omitted: the tokenizer.json of the folder."""

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError(f"{option('out')} needs the name of the folder to write.")


@dataclass(frozen=True)
class ParametersConfig:
    """Print the names, shapes and counts of a model's weights."""

    run: Positional[Annotated[str, arg(metavar="[RUN]", help_behavior_hint="")]] = ""
    """Run folder, model.safetensors file or checkpoint. If omitted: the model that the options describe."""
    model: ModelConfig = field(default_factory=ModelConfig)
    vocab_size: int = 65
    """Number of different tokens; tiny Shakespeare has 65 characters."""

    def __post_init__(self) -> None:
        check_range(self, "vocab_size", 1, 1 << 21)
        if self.run and replace(self, run="") != ParametersConfig():
            raise ConfigError(f"{self.run} has its own sizes; name either a run or sizes.")


@dataclass(frozen=True)
class RunsConfig:
    """List the runs in a folder, with their sizes, steps, best losses and times."""

    folder: Positional[Annotated[str, arg(metavar="[FOLDER]")]] = "runs"
    """Folder whose subfolders are runs."""
    sort: SortName = "name"
    """Order: by name; loss or bits per byte, the lowest first; or parameters, steps or minutes, the most first.
    date: the latest first."""
    json: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Write the list to this file, as a JSON array; - is standard output."""


@dataclass(frozen=True)
class PlotConfig:
    """Draw the losses of several runs in one picture."""

    runs: Positional[Annotated[Sequence[str], arg(metavar="RUN ...", help_behavior_hint="")]]
    """Run folders."""
    x: AxisName = "steps"
    """What the losses are drawn over: optimizer steps, tokens trained on, or the minutes that the steps took."""
    y: Annotated[LossUnit | Literal[""], arg(metavar="{nats,bits}", help_behavior_hint=NONE)] = ""
    """Losses in nats per token, or in bits per byte, in which runs with different tokens compare.
    If omitted: bits if the tokens of the runs differ."""
    out: Annotated[str, arg(metavar="FILE", help_behavior_hint=NONE)] = ""
    """Picture to write; its name ends in .png, .svg or .pdf.
    If omitted: losses.png in the folder of the run, or of several runs beside the first, such as runs/losses.png."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(map(str, self.runs)))
        picture_format(self.out)


@dataclass(frozen=True)
class PlaybookConfig:
    """Write the playbook, which explains each step of a GPT, as one page."""

    out: Annotated[str, arg(metavar="FILE")] = "playbook.html"
    """HTML file to write, which needs no network and no other file; - is standard output."""
    open: bool = False
    """Open the file in the browser."""

    def __post_init__(self) -> None:
        if not self.out:
            raise ConfigError(f"{option('out')} needs the name of a file, or - for standard output.")
        if self.open and self.out == STANDARD:
            raise ConfigError(f"{option('open')} cannot open standard output; name a file with {option('out')}.")


@dataclass(frozen=True)
class LabConfig:
    """Train models that differ in one thing, and report whether it matters."""

    experiment: Positional[Annotated[str, arg(metavar="NAME")]]
    """Name of the experiment; list prints all of them."""
    seeds: int = 3
    """Random seeds; every arm and learning rate is trained with each."""
    steps: int = 0
    """Optimizer steps of each run. 0: those of the experiment."""
    minutes: float = 0.0
    """Minutes after which the report is made from the seeds that are whole. 0: no limit."""
    pages: bool = False
    """Also make a page of the explorer for each arm, at its best learning rate and with the first seed."""
    data: Annotated[Sequence[str], arg(metavar="PATH ...", help_behavior_hint=NONE)] = ()
    """Text to train on: files or folders. If omitted: the language reference that comes with Python."""
    out: Annotated[str, arg(metavar="FOLDER", help_behavior_hint=NONE)] = ""
    """Folder for the report; an interrupted experiment goes on there. If omitted: lab/NAME."""
    backend: BackendName = "numba"
    """Kernels to compute with."""
    threads: int = 0
    """Threads of the numba backend. 0: one for each physical core."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", tuple(map(str, self.data)))
        for name, least, most in (("seeds", 1, 1000), ("steps", 0, 1 << 40), ("threads", 0, 4096)):
            check_range(self, name, least, most)
        if self.steps and self.steps < 10:
            raise ConfigError(f"{option('steps', self.steps)} are too few to compare anything; it must be at least 10.")
        if not 0.0 <= self.minutes < math.inf:
            raise ConfigError(f"{option('minutes')} is {self.minutes}; it must be a finite number, at least 0.")


# Wider models want lower learning rates; those of these two have not been swept over whole runs, see docs/training.md.
LARGER = {"lr": 1e-3, "min_lr": 1e-4}
# What a preset changes; everything else keeps the defaults above.
PRESETS: dict[PresetName, dict[str, Any]] = {
    "tiny": {"dim": 64, "layers": 1, "heads": 1, "batch": 8},
    "laptop": {},
    "baby": {"ctx": 256, "dim": 384, "layers": 6, "heads": 6, "batch": 16, **LARGER},
    "long": {"ctx": 2048, "dim": 256, "batch": 2, **LARGER},
}


def preset(name: PresetName | Literal["seed"], *, recipe: RecipeName | Literal[""] = "", **changes: Any) -> TrainConfig:
    """Return the training options of a preset, with changes to any field of TrainConfig or ModelConfig.

        preset("tiny", steps=200, heads=2)
        preset("laptop", recipe="fast")

    `name` is that of the preset; `dataclasses.replace` gives the run one. A `model` that is passed whole keeps its own
    sizes. Raises ConfigError for an unknown preset, recipe or option.
    """
    name = preset_name(name)
    sizes = {f.name for f in fields(ModelConfig)}
    given = {**PRESETS[name], **recipe_options(recipe)}
    given = {key: value for key, value in given.items() if key not in sizes or "model" not in changes}
    wanted = {**given, **changes}
    model = {key: wanted.pop(key) for key in sizes & wanted.keys()}
    unknown = wanted.keys() - {f.name for f in fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"There is no option {sorted(unknown)[0]!r}.")
    base = wanted.pop("model", ModelConfig())
    return TrainConfig(model=replace(base, **model), **wanted)


PICTURE_FORMATS = ("png", "svg", "pdf")
STANDARD = "-"  # the name that stands for standard output or input wherever a file is named


def picture_format(path: str) -> str:
    """Return the format of a picture, which is what its name ends in: png, svg or pdf. Standard output gets a png.

    Raises ConfigError for another ending.
    """
    kind = os.path.splitext(path)[1][1:].lower() if path != STANDARD else "png"
    if path and kind not in PICTURE_FORMATS:
        ends = f"ends in .{escaped(kind)}" if kind else "has no ending"
        raise ConfigError(
            f"The name of the picture {escaped(path)} {ends}; pictures are written as "
            f"{', '.join(f'.{name}' for name in PICTURE_FORMATS[:-1])} or .{PICTURE_FORMATS[-1]}."
        )
    return kind


def preset_name(name: str) -> PresetName:
    """Return the name of a preset, which may be given by its earlier name. Raises ConfigError, with all sizes."""
    name = OLD_PRESETS.get(name, name)
    for known in PRESETS:
        if name == known:
            return known
    raise ConfigError(f"There is no preset {name!r}; there are {', '.join(map(preset_sizes, PRESETS))}.")


def preset_sizes(name: PresetName) -> str:
    """Return a preset with its sizes, such as "tiny (ctx 64, dim 64, layers 1, heads 1, batch 8)"."""
    usual = {size: getattr(ModelConfig, size) for size in ("ctx", "dim", "layers", "heads")}
    sizes = {**usual, "batch": TrainConfig.batch, **PRESETS[name]}
    sizes = {size: value for size, value in sizes.items() if size not in LARGER}
    return f"{name} ({', '.join(f'{size} {value}' for size, value in sizes.items())})"


PRESETS_SHOWN = "\n".join(map(preset_sizes, PRESETS))  # in help: a line for each


def both_steps_and_minutes(minutes: str = "minutes") -> ConfigError:
    """Return the error for a number of steps beside a time."""
    return ConfigError(f"{option('steps')} cannot be combined with {option(minutes)}, from which the steps follow.")


def check_range(config: object, name: str, least: int, most: int) -> None:
    """Raise ConfigError, naming the option, for a field that is not from `least` to `most`."""
    value = getattr(config, name)
    if not least <= value <= most:
        shown = f"{value:,}" if abs(value) < 1 << 200 else "a number of more than 60 digits"
        raise ConfigError(f"{option(name)} is {shown}; it must be from {least:,} to {most:,}.")


def check_checkpoint(name: object) -> None:
    """Raise ConfigError unless `name` is one of a run's models: best, last, or the number of a step."""
    known = isinstance(name, str) and (name in (BEST_ONE, LAST_ONE) or (name.isascii() and name.isdigit()))
    if not known or len(str(name)) > 15:
        raise ConfigError(
            f"{option('checkpoint')} is {shown(repr(name), 60)}; it must be {BEST_ONE!r}, {LAST_ONE!r} or the number "
            "of a step."
        )


def tokens_to_learn(tokens: str) -> int:
    """Return the number of tokens that --tokens asks to learn from the text, 0 if it asks for none.

    Raises ConfigError for a number that cannot be, and for no value at all.
    """
    if not tokens:
        raise ConfigError(
            f"{option('tokens')} is empty; it must be {CHARACTERS}, {BYTE_TOKENS}, bpe:N or the name of a file."
        )
    if not tokens.startswith(LEARNED):
        return 0
    number = tokens.removeprefix(LEARNED)
    count = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
    if not 256 <= count <= MOST_LEARNED:
        raise ConfigError(
            f"{option('tokens')} is {shown(repr(tokens), 60)}; bpe:N needs a number of tokens from 256, as many as "
            f"there are bytes, to {MOST_LEARNED:,}."
        )
    return count


def token_unit(tokens: str) -> str:
    """Return what a token is called where --tokens is `tokens`."""
    return {CHARACTERS: "character", BYTE_TOKENS: "byte"}.get(tokens, "token")


def _encoding_name(name: object) -> str:
    """Return Python's own name of a text encoding, so that its synonyms are equal. Raises ConfigError."""
    try:
        found = codecs.lookup(name)  # type: ignore[arg-type]  # a Python caller may pass anything
        if found.name in NOT_ENCODINGS or "a\n".encode(found.name).decode(found.name) != "a\n":
            raise LookupError
    except (LookupError, TypeError, ValueError, AttributeError):  # ValueError: with a NUL, or UnicodeError
        raise ConfigError(
            f"{option('encoding')} is {name!r}; it must be a text encoding that Python knows, such as utf-8, utf-16, "
            "cp1252 or gb18030."
        ) from None
    return found.name


def _check_run_name(name: str) -> None:
    """Raise ConfigError for the name of a run that cannot be the name of a folder everywhere."""
    wrong = next((char for char in name if char in '/\\:*?"<>|' or not char.isprintable()), "")
    if wrong:
        raise ConfigError(f"{option('name')} has the character {wrong!r}, which the name of a folder cannot have.")
    if name.startswith((".", "-", " ")) or name.endswith((".", " ")):
        raise ConfigError(
            f"{option('name')} is {shown(repr(name), 60)}; it must not begin with a dot, a hyphen or a space, nor end "
            "with a dot or a space."
        )
    if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        raise ConfigError(f"{option('name')} is too long; it must have at most {LONGEST_NAME} bytes.")


def _texts(name: str, value: Any, kind: str) -> tuple[str, ...]:
    """Return one path or pattern, or a sequence of them, as a tuple of strings. Raises ConfigError."""
    values = (value,) if isinstance(value, str | os.PathLike) else value  # a string is a sequence of strings, too
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise ConfigError(f"{option(name)} is {shown(repr(value), 60)}; it must be a sequence of {kind}.")
    values = tuple(values)
    for each in values:
        if not isinstance(each, str | os.PathLike):
            raise ConfigError(f"{option(name)} has {shown(repr(each), 60)}; it must be a sequence of {kind}.")
    return tuple(map(str, values))


def _check_types(config: Any) -> None:
    """Check the types of values from Python callers and files; the command line checks its own.

    Numbers of NumPy become Python's.
    """
    for name, hint in get_type_hints(type(config)).items():
        value, wanted = getattr(config, name), get_args(hint)
        if hint in (int, float) and type(value) not in (int, float, bool):
            if isinstance(value, Integral):
                value = int(value)
            elif isinstance(value, Real) and hint is float:
                value = float(value)
            object.__setattr__(config, name, value)
        if wanted and isinstance(wanted[0], str):
            if value not in wanted:
                raise ConfigError(f"{option(name)} is {value!r}; it must be one of {', '.join(wanted)}.")
        elif hint in (int, bool):
            if type(value) is not hint:
                kind = "an integer" if hint is int else "True or False"
                raise ConfigError(f"{option(name)} is {value!r}; it must be {kind}.")
        elif hint is float and type(value) is int and abs(value) > sys.float_info.max:
            raise ConfigError(f"{option(name)} has too many digits; it must be a number that a float can hold.")
        elif hint is float and type(value) not in (float, int):
            raise ConfigError(f"{option(name)} is {value!r}; it must be a number.")
        elif hint is str and not isinstance(value, str):
            raise ConfigError(f"{option(name)} is {value!r}; it must be text.")
