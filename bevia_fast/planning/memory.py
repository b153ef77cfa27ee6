"""How much memory training takes, and whether that fits, found without allocating it."""

from __future__ import annotations

import functools
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import BackendName, ModelConfig, OptimizerName, TrainConfig
from ..errors import ConfigError
from ..kernels.contract import OPERATIONS
from ..machine import available_bytes, readable
from ..model.activations import LONG, Activations, LayerActivations
from ..naming import option
from ..stages import stages
from .rehearsal import MOST_TOKENS, Call, Rehearsed, rehearse

# The temporary arrays of the NumPy kernels at their peak; see `numpy_bytes`. For attention, without and with dropout:
# arrays of B x NH x T x T, mask bytes per element of these, and arrays of N x C. For other operations: arrays of the
# operation's size. tests/planning/test_rehearsal.py compares these numbers with real calls.
NUMPY_ATTENTION: dict[tuple[str, bool], tuple[float, int, float]] = {
    ("attention_forward", False): (3, 0, 1), ("attention_forward", True): (3, 0, 1),
    ("attention_backward", False): (3, 0, 4), ("attention_backward", True): (3.3, 7, 4),
}  # fmt: skip
NUMPY_ARRAYS: dict[str, float] = {
    "layernorm_forward": 4.1, "layernorm_backward": 4.1, "gelu_forward": 4, "gelu_backward": 9,
    "gelu_erf_forward": 7, "gelu_erf_backward": 7, "relu_forward": 1, "relu_backward": 1, "dropout_forward": 2.1,
    "dropout_backward": 2.1, "embedding_forward": 2, "embedding_backward": 1, "rotary_forward": 2, "rotary_backward": 2,
    "cross_entropy": 4, "adamw": 5, "squared_norm": 2,
}  # fmt: skip
# The same where NumPy does not reuse temporary arrays; for adamw also because the gaps in the heap then fit less well.
NUMPY_ATTENTION_ANEW = {
    **NUMPY_ATTENTION, ("attention_backward", False): (4, 0, 1.2), ("attention_backward", True): (5, 1, 3),
}  # fmt: skip
NUMPY_ARRAYS_ANEW = {
    **NUMPY_ARRAYS, "layernorm_backward": 5.1, "adamw": 6, "gelu_erf_forward": 8, "gelu_erf_backward": 8,
}  # fmt: skip
TABLES = {True: (NUMPY_ATTENTION, NUMPY_ARRAYS), False: (NUMPY_ATTENTION_ANEW, NUMPY_ARRAYS_ANEW)}  # whether it does
CTX_STEP, MOST_CTX = 64, 1 << 24  # granularity of the search for the largest context; the limit of --ctx


@dataclass(frozen=True)
class Memory:
    """Bytes that training adds to the process, by purpose."""

    weights: int
    gradients: int
    moments: int
    kept: int  # activations that layers keep from the forward pass for the backward pass
    passing: int  # activations in arrays that all layers share
    scratch: int  # working memory of the kernels
    crosscheck: int = 0  # gradients, activations and working memory of the other backend, if it checks this one

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def training_memory(
    config: ModelConfig, batch: int, backend: BackendName,
    *, recompute: bool = False, crosscheck: bool = False, optimizer: OptimizerName = "adamw",
) -> Memory:  # fmt: skip
    """Return the memory that training takes, without allocating it. For numba this depends on the number of threads
    currently set."""
    rehearsed = rehearse(config, batch, recompute=recompute, optimizer=optimizer)
    weights = rehearsed.weights.flat.nbytes
    kept, passing = activation_bytes(rehearsed.activations)
    moments = rehearsed.optimizer.first.flat.nbytes + rehearsed.optimizer.second.flat.nbytes
    other = 0
    if crosscheck:
        other = weights + kept + passing
        if optimizer == "muon":  # two copies to update, of which the gradients and moments of the first are freed
            other += 3 * weights + moments
        other += scratch_bytes(rehearsed, "numpy" if backend == "numba" else "numba")
    return Memory(weights, weights, moments, kept, passing, scratch_bytes(rehearsed, backend), other)


def run_memory(
    config: TrainConfig, model: ModelConfig, backend: BackendName, *, recompute: bool, crosscheck: bool = False,
    optimizer: OptimizerName = "adamw",
) -> Memory:  # fmt: skip
    """Return the memory of a run: each part as large as the stage of its context warm-up that needs most of it."""
    needed = [
        training_memory(
            replace(model, ctx=stage.ctx), stage.batch, backend, recompute=recompute, crosscheck=crosscheck,
            optimizer=optimizer,
        )
        for stage in stages(config.ctx_schedule, model.ctx, config.batch)
    ]  # fmt: skip
    return Memory(**{part.name: max(getattr(each, part.name) for each in needed) for part in fields(Memory)})


def activation_bytes(activations: Activations) -> tuple[int, int]:
    """Return the bytes of the arrays that layers keep for the backward pass, and of all other activations."""
    kept = {id(array): array.nbytes for block in activations.blocks for array in _arrays(block)}
    others = {id(array): array.nbytes for array in _arrays(activations) if id(array) not in kept}
    return sum(kept.values()), sum(others.values())


def _arrays(owner: LayerActivations | Activations) -> list[NDArray[Any]]:
    return [value for value in vars(owner).values() if isinstance(value, np.ndarray)]


def scratch_bytes(rehearsed: Rehearsed, backend: BackendName) -> int:
    """Return the bytes of working memory that a backend's kernels need for a step. Numba's kernels keep their buffers,
    so they add up; NumPy's free theirs after each call, so the largest counts."""
    if backend == "numpy":
        return max(numpy_bytes(call) for call, _ in rehearsed.calls)
    from ..kernels.numba_jit._runtime.rehearsal import Rehearsal

    rehearsal = Rehearsal()
    for call, _ in rehearsed.calls:
        rehearsal.run(call.operation, call.arguments)
    return sum(rehearsal.sizes.values())


def numpy_bytes(call: Call) -> int:
    """Return the peak bytes of the temporary arrays in one call of a NumPy kernel."""
    operation, given = call.operation, call.arguments
    attention, others = TABLES[reuses_temporaries()]
    dims = OPERATIONS[operation].dims(given)
    size = next(value.itemsize for value in given.values() if isinstance(value, np.ndarray) and value.dtype != np.int32)
    rows = dims.get("N", dims.get("B", 0) * dims.get("T", 0))
    if operation in ("attention_forward", "attention_backward"):
        squares, mask, widths = attention[operation, given.get("dropout_rate", 0.0) > 0.0]
        return int((squares * size + mask) * dims["B"] * dims["NH"] * dims["T"] ** 2 + widths * rows * dims["C"] * size)
    if operation == "linear_forward":
        arrays = {"gelu": 5, "gelu_erf": 8}.get(given.get("activation") or "", 2)
        return int(arrays * rows * dims["OC"] * size)
    if operation == "linear_backward":
        widths = {"gelu": 8, "gelu_erf": 8, "relu": 2.25}.get(given.get("activation") or "", 2)
        return int((widths * rows + dims["OC"]) * dims["C"] * size)
    if operation == "muon":
        largest = max(matrix.rows * matrix.columns for matrix in given["matrices"])
        side = max(min(matrix.rows, matrix.columns) for matrix in given["matrices"])
        return int(((5.7 if reuses_temporaries() else 6.7) * largest + 3.3 * side**2) * size)
    if operation.startswith("rotary"):
        return int(others[operation] * rows * 2 * dims["NH"] * dims["H"] * size)
    numbers = dims["P"] if "P" in dims else rows * dims.get("C", dims.get("V", 0))
    return int(others[operation] * numbers * size)


@functools.cache
def reuses_temporaries() -> bool:
    """Return whether NumPy writes a result into an operand that nothing else refers to.

    It does for large arrays, unless it cannot see who refers to an operand, as with some builds of Python 3.14.
    """
    if tracemalloc.is_tracing():  # the peak that it has recorded must not be reset
        return sys.version_info < (3, 14)
    numbers = np.zeros(1 << 16)
    tracemalloc.start(1)
    try:
        (numbers + 1.0) * 2.0
        return tracemalloc.get_traced_memory()[1] < 1.5 * numbers.nbytes
    finally:
        tracemalloc.stop()


def largest_ctx(
    config: ModelConfig, batch: int, backend: BackendName, available: int,
    *, recompute: bool, crosscheck: bool = False, optimizer: OptimizerName = "adamw",
) -> int:  # fmt: skip
    """Return the largest context at which training takes at most `available` bytes; 0 if there is none.

    From CTX_STEP on, it is a multiple of that.
    """

    def fits(ctx: int) -> bool:
        other = replace(config, ctx=ctx)
        memory = training_memory(
            other, batch, backend, recompute=recompute, crosscheck=crosscheck, optimizer=optimizer
        )
        return memory.total <= available

    a_row = batch * config.dim * np.dtype(config.dtype).itemsize  # of the residual stream, which is always kept
    low, high = 0, min(MOST_CTX, available // a_row, MOST_TOKENS // batch) // CTX_STEP
    long = -(-LONG * config.dim // CTX_STEP)  # from here on layers keep less: memory drops, then grows again
    if long <= high:
        low, high = (long, high) if fits(long * CTX_STEP) else (low, long - 1)
    found = CTX_STEP * _last(low, high, lambda steps: fits(steps * CTX_STEP))
    return found or _last(0, min(CTX_STEP - 1, available // a_row, MOST_TOKENS // batch), fits)


def _last(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the last number from `low` to `high` that fits, if all up to that one do; `low` if none does."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def map_bytes(config: ModelConfig, length: int) -> int:
    """Return the bytes of the attention maps of a text of `length` tokens."""
    return config.layers * config.heads * length**2 * (4 if config.dtype == "float32" else 8)






def refuse_training(config: TrainConfig, model: ModelConfig, held: int = 0) -> None:
    """Raise ConfigError if training needs more memory than is free, unless --ignore-memory is set. The message gives
    the plan's figures and says what would fit.

    `held`: bytes of the memory needed that this process already holds.
    """
    available = None if config.ignore_memory else available_bytes()
    if available is None:
        return
    available += held
    memory = run_memory(
        config, model, config.backend, recompute=config.recompute, crosscheck=config.crosscheck_every > 0,
        optimizer=config.optimizer,
    )  # fmt: skip
    if memory.total > available:
        raise ConfigError(_refusal(config, model, memory, available))


def _refusal(config: TrainConfig, model: ModelConfig, memory: Memory, available: int) -> str:
    options: dict[str, Any] = {"crosscheck": config.crosscheck_every > 0, "optimizer": config.optimizer}
    fitting = []
    if not config.recompute:
        less = training_memory(model, config.batch, config.backend, recompute=True, **options).total
        if less <= available:
            fitting.append(f"{option('recompute', True)} brings this down to {readable(less)}")
    ctx = largest_ctx(model, config.batch, config.backend, available, recompute=config.recompute, **options)
    if ctx:
        fitting.append(f"{option('ctx', ctx)} would fit")
    ways = "; ".join([*fitting, f"{option('ignore_memory', True)} starts anyway"])
    return (
        f"Training this model needs about {readable(memory.total)} of memory ({described(memory)}), but only "
        f"{readable(available)} is free; {ways}."
    )


def described(memory: Memory) -> str:
    """Return the sizes of the parts in words, for a message."""
    parts = [
        ("for weights, gradients and moments", memory.weights + memory.gradients + memory.moments),
        ("kept for the backward pass", memory.kept),
        ("of working arrays", memory.passing + memory.scratch),
        ("for the cross-check", memory.crosscheck),
    ]  # fmt: skip
    return ", ".join(f"{readable(size)} {what}" for what, size in parts if size)
