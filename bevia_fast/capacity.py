"""Whether a request fits into memory, asked before the memory is."""

from __future__ import annotations

import os
from pathlib import Path

from .activations import LOGITS_BYTES
from .config import ModelConfig
from .errors import ConfigError
from .parameters import parameter_specs

CGROUP = Path("/sys/fs/cgroup")


def training_bytes(config: ModelConfig, batch: int, backends: tuple[str, ...]) -> int:
    """Bytes that training takes at its peak: weights, gradients, two moments and the file to be saved, and for each
    backend the activations. The NumPy one also holds a few arrays of T x T for each head, as the mathematics has them.
    """
    weights = sum(spec.count for spec in parameter_specs(config))
    C, V, T, N = config.dim, config.vocab_size, config.ctx, batch * config.ctx
    size = 4 if config.dtype == "float32" else 8
    # the arrays of `activations.Block` and `activations.Activations`, in channels
    activations = N * (16 * C + config.heads + 4) * config.layers + N * (12 * C + 3)
    logits = max(V, min(N * V, LOGITS_BYTES // size))
    total = 5 * weights
    for number, name in enumerate(backends):
        total += activations + logits + (weights if number else 0)
        if name == "numpy":
            total += 5 * batch * config.heads * T * T + 8 * N * C
    return total * size


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
