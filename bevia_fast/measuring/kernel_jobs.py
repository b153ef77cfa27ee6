"""The kernel calls that `bench kernels` and `profile KERNEL` measure."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..agreement.comparison import Case
from ..errors import ConfigError
from ..kernels.contract import OPERATIONS, Cost, MatrixAt, Operation
from .option_groups import is_own
from .options import SMALL, BenchKernelsConfig, ProfileKernelConfig
from .own_kernel import OwnKernel, own_kernel

_USUAL_ADAMW = {
    # decays so close to 1 that no moment becomes denormal over thousands of calls; both are exact in float32
    "step": 100, "learning_rate": 1e-6, "beta1": 1 - 2**-20, "beta2": 1 - 2**-20, "eps": 1e-8, "weight_decay": 0.1,
}  # fmt: skip
_USUAL_MUON = {"learning_rate": 1e-6, "beta": 1 - 2**-20, "weight_decay": 0.1}
# How the model calls the kernels: the optional arrays that it passes, and the options.
GIVEN: dict[str, tuple[str, ...]] = {
    "embedding_forward": ("position_table",), "embedding_backward": ("dposition_table",),
    "layernorm_forward": ("bias",), "layernorm_backward": ("dbias", "dresidual"), "linear_forward": ("bias",),
    "linear_backward": ("dbias",), "cross_entropy": ("dlogits",),
    "decode_tokens": (
        "position_table", "ln_1_bias", "qkv_bias", "attn_proj_bias", "ln_2_bias", "fc_bias", "mlp_proj_bias",
        "ln_f_bias",
    ),
}  # fmt: skip
DROPOUT = {"rate": 0.1, "key": 1}
_USUAL_SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 1.0}
SCALES: dict[str, dict[str, int]] = {
    "small": SMALL,
    "medium": {"ctx": 256, "batch": 8, "heads": 6, "dim": 384, "vocab": 65},  # the baby preset, half a batch
    "large": {"ctx": 1024, "batch": 2, "heads": 12, "dim": 768, "vocab": 4096},
}


@dataclass(frozen=True)
class Job:
    """A kernel call at one size."""

    operation: str
    dims: Mapping[str, int]
    given: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    own: OwnKernel | None = None  # a kernel of the user's to time beside the backends

    @property
    def size(self) -> str:
        """The sizes behind the letters of the contract, as text."""
        return " ".join(f"{letter}={number}" for letter, number in self.dims.items())

    @property
    def case(self) -> Case:
        return Case(self.operation, self.dims, self.given, self.options)

    def cost(self, dtype: str) -> Cost:
        """Return the cost, computed from the shapes without allocating the arrays."""
        return OPERATIONS[self.operation].cost_of(self.dims, self.given, dtype, self.options)

    def memory(self, backends: Sequence[str], dtype: str) -> int:
        """Return the approximate bytes that timing takes. There is a process for each of `backends` with arguments of
        its own, and one that compares the backends, with four times as many."""
        itemsize = 4 if dtype == "float32" else 8
        arrays = sum(
            math.prod(spec.shape(self.dims)) * (4 if spec.below else itemsize)
            for spec in OPERATIONS[self.operation].arrays if not spec.optional or spec.name in self.given
        )  # fmt: skip
        total = (4 + len(backends) + (self.own is not None)) * arrays
        if self.operation in ("attention_forward", "attention_backward"):  # NumPy's arrays of T x T
            squares = 6 * self.dims["B"] * self.dims["NH"] * self.dims["T"] ** 2 * itemsize
            total += (1 + list(backends).count("numpy")) * squares
        return total


def families() -> dict[str, list[str]]:
    """Return the operations, grouped by their names without _forward and _backward."""
    found: dict[str, list[str]] = {}
    for name in OPERATIONS:
        found.setdefault(re.sub("_(forward|backward)$", "", name), []).append(name)
    return found


def chosen(names: Sequence[str]) -> list[str]:
    """Return the operations that `names` stand for: kernels, single directions, or "all".

    Raises ConfigError for an unknown name.
    """
    known, found = families(), []
    for name in names:
        if name == "all":
            found += list(OPERATIONS)
        elif name in OPERATIONS:
            found.append(name)
        elif name in known:
            found += known[name]
        elif name in ("step", "list"):
            raise ConfigError(f"{name} is not a kernel; run bevia-fast profile {name} by itself.")
        else:
            close = difflib.get_close_matches(name, [*known, *OPERATIONS, "step", "list"], 1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"There is no kernel {name!r}{meant}; the kernels are {', '.join(known)}.")
    return list(dict.fromkeys(found))


def letters_of(ctx: int, batch: int, heads: int, dim: int, vocab: int) -> dict[str, int]:
    """Return the sizes behind the letters of the contract's shapes, in a model of these sizes."""
    return {
        "B": batch, "T": ctx, "N": batch * ctx, "C": dim, "NH": heads, "HS": dim // heads, "OC": 4 * dim, "V": vocab,
        "P": 12 * dim * dim, "S": ctx, "R": ctx, "D": 8, "L": 4, "G": 4, "M": dim, "H": max(1, dim // heads // 2),
        "K": 2,
    }  # fmt: skip


def job(operation: str, letters: Mapping[str, int]) -> Job:
    """Return the call of an operation as the model makes it. `letters`: sizes, of which it takes those it needs."""
    entry = OPERATIONS[operation]
    used = {letter for spec in entry.arrays for dim in spec.dims for letter in dim.split("*") if not letter.isdigit()}
    used |= {spec.below for spec in entry.arrays if spec.below}
    used |= {*(entry.divides or ()), *(("HS",) if "NH" in used else ())}
    options: dict[str, Any] = {}
    if operation.startswith("dropout"):
        options = dict(DROPOUT)
    elif operation == "adamw":
        options = _USUAL_ADAMW | {"decayed": letters["P"]}
    elif operation == "muon":
        options = _USUAL_MUON | {"matrices": layer_matrices(letters["P"])}
    elif operation == "decode_tokens":
        options = _USUAL_SAMPLING | {
            "token": 0, "index": letters["S"] // 4, "norm": "pre", "activation": "gelu", "key": 1, "draw": 0,
        }  # fmt: skip
    elif operation == "sample_token":
        options = _USUAL_SAMPLING | {"noise": 0.5}
    return Job(operation, {name: letters[name] for name in letters if name in used}, GIVEN.get(operation, ()), options)


def layer_matrices(parameters: int) -> tuple[MatrixAt, ...]:
    """Return the matrices of one layer with as many parameters, or of a narrower one if there is none of that size; one
    row if they are too few for a layer."""
    C = math.isqrt(parameters // 12)
    if C == 0:
        return (MatrixAt(0, 1, parameters, parameters),)
    qkv = [MatrixAt(j * C, C, C, 3 * C) for j in range(3)]
    return (*qkv, MatrixAt(3 * C * C, C, C, C), MatrixAt(4 * C * C, C, 4 * C, 4 * C), MatrixAt(8 * C * C, 4 * C, C, C))


def letters_for(config: ProfileKernelConfig) -> dict[str, int]:
    """Return the sizes behind the letters for the options of `profile KERNEL ...`."""
    letters = letters_of(config.ctx, config.batch, config.heads, config.channels, config.vocab)
    given = {"OC": config.out_dim, "P": config.parameters}
    return letters | {letter: size for letter, size in given.items() if size}


def profile_jobs(config: ProfileKernelConfig) -> list[Job]:
    """Return the calls that `profile KERNEL ...` measures."""
    letters = letters_for(config)
    own = [own_kernel(name, config.like) for name in config.kernels if is_own(name)]
    jobs = [replace(job(one.operation, letters), own=one) for one in own]
    return jobs + [job(operation, letters) for operation in chosen([n for n in config.kernels if not is_own(n)])]


def bench_jobs(config: BenchKernelsConfig) -> list[Job]:
    """Return the calls that `bench kernels` measures: each kernel at each scale."""
    sizes = config.sizes()
    wanted = [sizes] if sizes else list(SCALES.values())[: 1 if config.quick else None]
    scales = [letters_of(**scale) for scale in wanted]
    jobs = []
    for operation in chosen(config.only or ("all",)):
        jobs += [job(operation, letters) for letters in scales]
    return list({(one.operation, one.size): one for one in jobs}.values())


def formula_cost(entry: Operation) -> tuple[str, str]:
    """Return flops and bytes of an operation as `profile list` shows them: for a call in a small model."""
    one = job(entry.name, letters_of(**SCALES["small"]))
    cost = one.cost("float32")
    return f"{cost.flops:,.0f}", f"{cost.bytes:,.0f}"
