"""Whether a request fits into memory, asked before the memory is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import BackendName, ModelConfig, TrainConfig
from ..errors import ConfigError
from ..kernels.contract import OPERATIONS
from ..machine import available_bytes, readable
from ..model.activations import LONG, Activations, LayerActivations
from .rehearsal import MOST_TOKENS, Call, Rehearsed, rehearse

# What NumPy's kernels have of their own at a time; see `numpy_bytes`. In attention, with and without dropout: arrays of
# B x NH x T x T, bytes of the mask for each of their elements, and arrays of N x C; elsewhere arrays of the operation's
# size. Held against calls by tests/test_rehearsal.py.
NUMPY_ATTENTION = {("attention_forward", False): (3, 0, 1), ("attention_forward", True): (3, 0, 1),
                   ("attention_backward", False): (3, 0, 4), ("attention_backward", True): (3.3, 7, 4)}  # fmt: skip
NUMPY_ARRAYS = {
    "layernorm_forward": 4.1, "layernorm_backward": 4.1, "gelu_forward": 4, "gelu_backward": 9, "relu_forward": 1,
    "relu_backward": 1, "dropout_forward": 2.1, "dropout_backward": 2.1, "embedding_forward": 2,
    "embedding_backward": 1, "cross_entropy": 4, "adamw": 5, "squared_norm": 2,
}  # fmt: skip
CTX_STEP, MOST_CTX = 64, 1 << 24  # a largest context is looked for in such steps; --ctx may not be more


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes beside what the process has without it, by what they are for."""

    weights: int
    gradients: int
    moments: int
    kept: int  # what layers keep of the forward pass for the backward pass
    passing: int  # what the numbers pass through, the same for all layers
    scratch: int  # working memory of the kernels
    crosscheck: int = 0  # gradients, activations and working memory of the other backend, where one looks on

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def training_memory(
    config: ModelConfig, batch: int, backend: BackendName, *, recompute: bool = False, crosscheck: bool = False
) -> Memory:
    """What training takes, without taking it. Of numba's kernels, with as many threads as are set."""
    rehearsed = rehearse(config, batch, recompute=recompute)
    weights = rehearsed.weights.flat.nbytes
    kept, passing = activation_bytes(rehearsed.activations)
    other = 0
    if crosscheck:
        other = weights + kept + passing
        other += scratch_bytes(rehearsed, "numpy" if backend == "numba" else "numba")
    return Memory(weights, weights, 2 * weights, kept, passing, scratch_bytes(rehearsed, backend), other)


def activation_bytes(activations: Activations) -> tuple[int, int]:
    """Bytes of the arrays that layers keep for the way back, and of all others."""
    kept = {id(array): array.nbytes for block in activations.blocks for array in _arrays(block)}
    others = {id(array): array.nbytes for array in _arrays(activations) if id(array) not in kept}
    return sum(kept.values()), sum(others.values())


def _arrays(owner: LayerActivations | Activations) -> list[NDArray[Any]]:
    return [value for value in vars(owner).values() if isinstance(value, np.ndarray)]


def scratch_bytes(rehearsed: Rehearsed, backend: BackendName) -> int:
    """Bytes of the working memory of a backend's kernels in a step: numba's keep theirs, NumPy's take and give back."""
    if backend == "numpy":
        return max(numpy_bytes(call) for call, _ in rehearsed.calls)
    from ..kernels.numba_jit._rehearsal import Rehearsal

    rehearsal = Rehearsal()
    for call, _ in rehearsed.calls:
        rehearsal.run(call.operation, call.arguments)
    return sum(rehearsal.sizes.values())


def numpy_bytes(call: Call) -> int:
    """Bytes that a call of a NumPy kernel has in arrays of its own, at most at a time."""
    operation, given = call.operation, call.arguments
    dims = OPERATIONS[operation].dims(given)
    size = next(value.itemsize for value in given.values() if isinstance(value, np.ndarray) and value.dtype != np.int32)
    rows = dims.get("N", dims.get("B", 0) * dims.get("T", 0))
    if operation in ("attention_forward", "attention_backward"):
        squares, mask, widths = NUMPY_ATTENTION[operation, given.get("dropout_rate", 0.0) > 0.0]
        return int((squares * size + mask) * dims["B"] * dims["NH"] * dims["T"] ** 2 + widths * rows * dims["C"] * size)
    if operation == "linear_forward":
        return (5 if given.get("activation") == "gelu" else 2) * rows * dims["OC"] * size
    if operation == "linear_backward":
        arrays = {"gelu": 8, "relu": 2.25}.get(given.get("activation") or "", 2)
        return int((arrays * rows + dims["OC"]) * dims["C"] * size)
    numbers = dims["P"] if "P" in dims else rows * dims.get("C", dims.get("V", 0))
    return int(NUMPY_ARRAYS[operation] * numbers * size)


def largest_ctx(
    config: ModelConfig, batch: int, backend: BackendName, available: int, *, recompute: bool, crosscheck: bool = False
) -> int:
    """The largest context, in steps of CTX_STEP, with which training takes no more than `available`; 0 if none does."""

    def fits(ctx: int) -> bool:
        other = replace(config, ctx=ctx)
        return training_memory(other, batch, backend, recompute=recompute, crosscheck=crosscheck).total <= available

    a_row = batch * config.dim * np.dtype(config.dtype).itemsize  # of the stream, which is kept in any case
    low, high = 0, min(MOST_CTX, available // a_row, MOST_TOKENS // batch) // CTX_STEP
    long = -(-LONG * config.dim // CTX_STEP)  # from here on layers keep less, and memory grows anew
    if long <= high:
        low, high = (long, high) if fits(long * CTX_STEP) else (low, long - 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CTX_STEP) else (low, middle - 1)
    return low * CTX_STEP


def map_bytes(config: ModelConfig, length: int) -> int:
    """Bytes that the attention maps of a text of `length` tokens take."""
    return config.layers * config.heads * length**2 * (4 if config.dtype == "float32" else 8)






def refuse_training(config: TrainConfig, model: ModelConfig, held: int = 0) -> None:
    """Raises ConfigError, with the figures of the plan and what would fit, if training takes more memory than there is
    and the options do not say that it shall begin all the same. `held`: bytes of it that the process has already."""
    available = None if config.ignore_memory else available_bytes()
    if available is None:
        return
    available += held
    crosscheck = config.crosscheck_every > 0
    memory = training_memory(model, config.batch, config.backend, recompute=config.recompute, crosscheck=crosscheck)
    if memory.total > available:
        raise ConfigError(_refusal(config, model, memory, available))


def _refusal(config: TrainConfig, model: ModelConfig, memory: Memory, available: int) -> str:
    crosscheck = config.crosscheck_every > 0
    fitting = []
    if not config.recompute:
        less = training_memory(model, config.batch, config.backend, recompute=True, crosscheck=crosscheck).total
        if less <= available:
            fitting.append(f"with --recompute it is {readable(less)}")
    ctx = largest_ctx(model, config.batch, config.backend, available, recompute=config.recompute, crosscheck=crosscheck)
    if ctx:
        fitting.append(f"--ctx {ctx} would fit")
    ways = "; ".join([*fitting, "--ignore-memory begins all the same"])
    return (
        f"Training this model needs about {readable(memory.total)} of memory ({described(memory)}), and "
        f"{readable(available)} are free: {ways}."
    )


def described(memory: Memory) -> str:
    """The parts in a few words."""
    parts = [
        ("for weights, gradients and moments", memory.weights + memory.gradients + memory.moments),
        ("kept for the backward pass", memory.kept),
        ("of working arrays", memory.passing + memory.scratch),
        ("to cross-check", memory.crosscheck),
    ]  # fmt: skip
    return ", ".join(f"{readable(size)} {what}" for what, size in parts if size)






