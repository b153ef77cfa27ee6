"""Which calls of which kernels are measured, by `bench kernels` and by `profile KERNEL`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..agreement.comparison import Case
from ..errors import ConfigError
from ..kernels.contract import OPERATIONS, Cost, Operation
from .options import BenchKernelsConfig, ProfileKernelConfig

_USUAL_ADAMW = {
    # decays so near to 1 that no moment fades to a denormal number over thousands of calls; exact in float32
    "step": 100, "learning_rate": 1e-6, "beta1": 1 - 2**-20, "beta2": 1 - 2**-20, "eps": 1e-8, "weight_decay": 0.1,
}  # fmt: skip
# How the model calls them: which arrays that may be None are given, and the options.
GIVEN: dict[str, tuple[str, ...]] = {
    "layernorm_forward": ("bias",), "layernorm_backward": ("dbias", "dresidual"), "linear_forward": ("bias",),
    "linear_backward": ("dbias",), "cross_entropy": ("dlogits",),
    "decode_tokens": (
        "ln_1_bias", "qkv_bias", "attn_proj_bias", "ln_2_bias", "fc_bias", "mlp_proj_bias", "ln_f_bias",
    ),
}  # fmt: skip
DROPOUT = {"rate": 0.1, "key": 1}
_USUAL_SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 1.0}
SCALES: dict[str, dict[str, int]] = {
    "small": {"ctx": 64, "batch": 12, "heads": 4, "dim": 128, "vocab": 65},  # the laptop preset
    "medium": {"ctx": 256, "batch": 8, "heads": 6, "dim": 384, "vocab": 65},  # the baby preset, half a batch
    "large": {"ctx": 1024, "batch": 2, "heads": 12, "dim": 768, "vocab": 4096},
}


@dataclass(frozen=True)
class Job:
    """A kernel at one size."""

    operation: str
    dims: Mapping[str, int]
    given: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """The size in a few words, in the letters of the contract."""
        return " ".join(f"{letter}={number}" for letter, number in self.dims.items())

    @property
    def case(self) -> Case:
        return Case(self.operation, self.dims, self.given, self.options)

    def cost(self, dtype: str) -> Cost:
        """From the shapes alone: nothing of this size is allocated."""
        return OPERATIONS[self.operation].cost_of(self.dims, self.given, dtype, self.options)

    def memory(self, backends: Sequence[str], dtype: str) -> int:
        """Bytes that timing it takes, about: each of the processes, one for each of `backends`, has arguments of its
        own, and the one that holds the backends against each other has four times as many."""
        itemsize = 4 if dtype == "float32" else 8
        arrays = sum(
            math.prod(spec.shape(self.dims)) * (4 if spec.below else itemsize)
            for spec in OPERATIONS[self.operation].arrays if not spec.optional or spec.name in self.given
        )  # fmt: skip
        total = (4 + len(backends)) * arrays
        if self.operation in ("attention_forward", "attention_backward"):  # NumPy's arrays of T x T
            squares = 6 * self.dims["B"] * self.dims["NH"] * self.dims["T"] ** 2 * itemsize
            total += (1 + list(backends).count("numpy")) * squares
        return total


def families() -> dict[str, list[str]]:
    """The operations by the name that they share without _forward and _backward."""
    found: dict[str, list[str]] = {}
    for name in OPERATIONS:
        found.setdefault(re.sub("_(forward|backward)$", "", name), []).append(name)
    return found


def chosen(names: Sequence[str]) -> list[str]:
    """The operations meant by names of kernels, of single directions, or "all". Raises ConfigError for another name."""
    known, found = families(), []
    for name in names:
        if name == "all":
            found += list(OPERATIONS)
        elif name in OPERATIONS:
            found.append(name)
        elif name in known:
            found += known[name]
        elif name in ("step", "list"):
            raise ConfigError(f"{name} is no kernel; bevia-fast profile {name} stands by itself.")
        else:
            close = difflib.get_close_matches(name, [*known, *OPERATIONS, "step", "list"], 1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"There is no kernel {name!r}{meant}; there are {', '.join(known)}.")
    return list(dict.fromkeys(found))


def letters_of(ctx: int, batch: int, heads: int, dim: int, vocab: int) -> dict[str, int]:
    """What the letters of the contract's shapes stand for in a model of these sizes."""
    return {
        "B": batch, "T": ctx, "N": batch * ctx, "C": dim, "NH": heads, "HS": dim // heads, "OC": 4 * dim, "V": vocab,
        "P": 12 * dim * dim, "S": ctx, "R": ctx, "D": 8, "L": 4, "G": 4, "M": dim,
    }  # fmt: skip


def job(operation: str, letters: Mapping[str, int]) -> Job:
    """The call of an operation as the model makes it."""
    entry = OPERATIONS[operation]
    used = {letter for spec in entry.arrays for dim in spec.dims for letter in dim.split("*") if not letter.isdigit()}
    used |= {spec.below for spec in entry.arrays if spec.below}
    used |= {*(entry.divides or ()), *(("HS",) if "NH" in used else ())}
    options: dict[str, Any] = {}
    if operation.startswith("dropout"):
        options = dict(DROPOUT)
    elif operation == "adamw":
        options = _USUAL_ADAMW | {"decayed": letters["P"]}
    elif operation == "decode_tokens":
        options = _USUAL_SAMPLING | {
            "token": 0, "index": letters["S"] // 4, "norm": "pre", "activation": "gelu", "key": 1, "draw": 0,
        }  # fmt: skip
    elif operation == "sample_token":
        options = _USUAL_SAMPLING | {"noise": 0.5}
    return Job(operation, {name: letters[name] for name in letters if name in used}, GIVEN.get(operation, ()), options)


def letters_for(config: ProfileKernelConfig) -> dict[str, int]:
    """The same for what `profile KERNEL ...` is asked for."""
    letters = letters_of(config.ctx, config.batch, config.heads, config.channels, config.vocab)
    given = {"OC": config.out_dim, "P": config.parameters}
    return letters | {letter: size for letter, size in given.items() if size}


def profile_jobs(config: ProfileKernelConfig) -> list[Job]:
    """What `profile KERNEL ...` measures."""
    letters = letters_for(config)
    return [job(operation, letters) for operation in chosen(config.kernels)]


def bench_jobs(config: BenchKernelsConfig) -> list[Job]:
    """What `bench kernels` measures: each kernel at each scale."""
    scales = [letters_of(**scale) for scale in SCALES.values()][: 1 if config.quick else None]
    jobs = []
    for operation in chosen(config.only or ("all",)):
        jobs += [job(operation, letters) for letters in scales]
    return list({(one.operation, one.size): one for one in jobs}.values())


def formula_cost(entry: Operation) -> tuple[str, str]:
    """Flops and bytes of an operation as they are listed: for the call that the model makes, in a small model."""
    one = job(entry.name, letters_of(**SCALES["small"]))
    cost = one.cost("float32")
    return f"{cost.flops:,.0f}", f"{cost.bytes:,.0f}"
