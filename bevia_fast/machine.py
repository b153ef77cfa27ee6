"""Facts about the machine: the name of its CPU, and how much memory is free."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from .errors import ConfigError, counted

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the bytes of memory available without swapping, or None if the system does not say."""
    found = _free_in_containers()
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    if not found and hasattr(os, "sysconf"):
        try:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            return None
    return min(found) if found else None


def _free_in_containers() -> list[int]:
    """Return what is left of a container's limit, for control groups of version 2 and version 1.

    Cached file pages count as used but are available.
    """
    found = []
    for folder, most, used, kept in (
        (CGROUP, "memory.max", "memory.current", "inactive_file"),
        (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):  # also "max": no limit
            limit, taken = (int((folder / name).read_text("ascii")) for name in (most, used))
            found.append(limit - taken)
            lines = (folder / "memory.stat").read_text("ascii").splitlines()
            found[-1] += int(dict(line.split() for line in lines)[kept])
    return found


def resident_bytes() -> int:
    """Return the bytes that this process has in RAM, or 0 if the system does not say."""
    try:
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def refuse_too_large(needed: int, what: str) -> None:
    """Raise ConfigError, with both figures, if `what` needs more memory than is free."""
    available = available_bytes()
    if available is not None and needed > available:
        raise ConfigError(f"{what} needs about {readable(needed)} of memory, and {readable(available)} are free.")


def readable(count: float) -> str:
    """Return a number of bytes in readable form, such as "1.5 GB". A kB is 1,000 bytes, an MB 10^6 and a GB 10^9, in
    all that this program prints."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < (1000 if unit == "bytes" else 999.95):
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} PB"


def duration(seconds: float) -> str:
    """Return a time in readable units, such as "1.90 ms", "51.2 s", "3 min 20 s", "2 h 5 min" or "4 days 3 h"."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        count = seconds / size
        if count < (59.95 if unit == "s" else 999.5):
            return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"
    for large, small, rest in (("min", "s", 1), ("h", "min", 60)):
        whole, part = divmod(round(seconds / rest), 60)
        if whole < (60 if large == "min" else 24):
            return f"{whole} {large} {part} {small}"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{counted(days, 'day')} {hours} h"


CPUINFO = Path("/proc/cpuinfo")


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        for line in CPUINFO.read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except (OSError, IndexError):
        pass
    return platform.processor() or platform.machine()
