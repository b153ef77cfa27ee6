"""Whether a request fits into memory, asked before the memory is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import Activations, Block
from .config import ModelConfig
from .errors import ConfigError
from .parameters import parameter_specs

CGROUP = Path("/sys/fs/cgroup")


def training_bytes(config: ModelConfig, batch: int, backends: tuple[str, ...], *, recompute: bool = False) -> int:
    """Bytes that training takes at its peak: weights, gradients, two moments and the file to be saved, and for each
    backend the activations. The NumPy one also holds a few arrays of T x T for each head, as the mathematics has them.
    """
    weights = sum(spec.count for spec in parameter_specs(config))
    C, T, N = config.dim, config.ctx, batch * config.ctx
    size = np.dtype(config.dtype).itemsize
    total = 5 * weights * size
    for number, name in enumerate(backends):
        total += sum(activation_bytes(config, batch, recompute=recompute)) + (weights * size if number else 0)
        if name == "numpy":
            total += (5 * batch * config.heads * T * T + 8 * N * C) * size
    return total


def activation_bytes(config: ModelConfig, batch: int, *, recompute: bool = False) -> tuple[int, int]:
    """Bytes of the arrays that layers keep for the way back, and of all others of `Activations`."""
    acts = Activations(config, batch, config.ctx, recompute=recompute, empty=_shape_only)
    kept = {id(array): array.nbytes for block in acts.blocks for array in _arrays(block)}
    others = {id(array): array.nbytes for array in _arrays(acts) if id(array) not in kept}
    return sum(kept.values()), sum(others.values())


def _shape_only(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.empty((), dtype), shape)


def _arrays(owner: Block | Activations) -> list[NDArray[Any]]:
    return [value for value in vars(owner).values() if isinstance(value, np.ndarray)]


def map_bytes(config: ModelConfig, length: int) -> int:
    """Bytes that the attention maps of a text of `length` tokens take."""
    return config.layers * config.heads * length**2 * (4 if config.dtype == "float32" else 8)


def available_bytes() -> int | None:
    """Memory that can be had without swapping, or None where the system does not say."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = (CGROUP / "memory.max").read_text("ascii").strip()  # a container's share
        if limit != "max":
            found.append(int(limit) - int((CGROUP / "memory.current").read_text("ascii")))
    except (OSError, ValueError, IndexError):
        pass
    if not found and hasattr(os, "sysconf"):
        try:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            return None
    return min(found) if found else None


def refuse_too_large(needed: int, what: str) -> None:
    """Raises ConfigError, with both figures, if `what` needs more memory than there is."""
    available = available_bytes()
    if available is not None and needed > available:
        raise ConfigError(f"{what} needs about {readable(needed)} of memory, and {readable(available)} are free.")


def readable(count: float) -> str:
    """A number of bytes for people: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} PiB"
