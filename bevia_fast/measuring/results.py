"""Results of measuring: what is written, how it is read again, and two of them side by side."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError, shown
from ..files import check_writable, reading, refuse_special, write_text


@dataclass(frozen=True)
class StepResult:
    """A training step of one competitor; a line of the table, and an object of the JSON file.

    Times in milliseconds, `first_step_s` in seconds with compilation; `gflops` counts matrix products only, see
    `training_step.StepSize.flops`; `peak_gflops` is the most that the vector units reached in the same run, with these
    threads. `peak_rss_mb`: the most memory that the process had while it stepped. `over_bare_mb`: that, less what it
    had with everything loaded before the model; 0 where this was not looked at.
    """

    backend: str
    threads: int
    dtype: str
    ctx: int
    dim: int
    layers: int
    heads: int
    batch: int
    vocab: int
    ms_median: float
    ms_p20: float
    ms_p80: float
    tokens_per_s: float
    flops_per_step: float
    gflops: float
    peak_gflops: float
    fraction_of_peak: float
    peak_rss_mb: float
    first_step_s: float
    over_bare_mb: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str = ""
    date: str = ""


@dataclass(frozen=True)
class KernelResult:
    """A kernel of one backend at one size. Times in milliseconds, `first_call_s` in seconds with compilation.

    `flops`, `bytes`: the contract's cost model. `roof_gflops`: the least of what the vector units reached, and what the
    memory that holds this many bytes could have fed, both the most that was measured in the same run. `peak_rss_mb`:
    the most memory that the process had from making the arguments on.
    """

    kernel: str
    backend: str
    threads: int
    dtype: str
    size: str
    dims: Mapping[str, int]
    ms_median: float
    ms_p20: float
    ms_p80: float
    flops: float
    bytes: float
    intensity: float
    gflops: float
    gbytes_per_s: float
    peak_gflops: float
    peak_gbytes_per_s: float
    roof_gflops: float
    fraction_of_peak: float
    fraction_of_roof: float
    bound: str
    first_call_s: float
    peak_rss_mb: float = 0.0
    cold: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str = ""
    date: str = ""


@dataclass
class StepReport:
    """What was found about steps, and what else there is to say."""

    results: list[StepResult] = field(default_factory=list)
    checked: str = ""  # how the competitors were held against each other
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False  # by Ctrl-C, with the results so far


Result = StepResult | KernelResult

# What two results must share to be the same measurement on two machines.
IDENTITY = ("kernel", "size", "backend", "threads", "dtype", "ctx", "dim", "layers", "heads", "batch", "vocab", "cold")




def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def peaks(results: Sequence[Result]) -> str:
    """What the vector units reached in a run, in words: for each number of threads the most."""
    found: dict[int, float] = {}
    for result in results:
        found[result.threads] = max(found.get(result.threads, 0.0), result.peak_gflops)
    return ", ".join(f"{peak:.0f} GFLOP/s with {n} thread{'s' * (n > 1)}" for n, peak in found.items())


def write_json(path: str, figures: Mapping[str, Any]) -> None:
    """Raises UserError if the file cannot be written."""
    write_text(path, json.dumps(figures, indent=1) + "\n")


def append_json(path: str, results: Sequence[Result]) -> None:
    """Add the results to the list in a file, if there is one. Raises UserError if it cannot be written, or holds
    something else."""
    before = read_json(path) if _holds_something(path) else []
    write_text(path, json.dumps([*before, *(asdict(result) for result in results)], indent=1) + "\n")


def check_results_files(json_path: str, csv_path: str, kind: type) -> None:
    """Raises UserError before anything is measured if results of this kind could not be added to the files."""
    check_writable(json_path, csv_path)
    if _holds_something(json_path):
        read_json(json_path)
    if csv_path:
        _is_new(csv_path, [field.name for field in fields(kind)])


def _holds_something(path: str) -> bool:
    return bool(path) and Path(path).is_file() and Path(path).stat().st_size > 0


def _is_new(path: str, names: Sequence[str]) -> bool:
    """Whether a CSV file is yet to get its header. Raises UserError if it has another one."""
    try:
        with open(path, encoding="utf-8", newline="") as existing:
            first = existing.readline().rstrip("\r\n")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}.") from None
    if first and first != ",".join(names):
        raise UserError(f"{path} has other columns than these results; name another file.")
    return not first


def append_csv(path: str, results: Sequence[Result]) -> None:
    """A line for each result, under a header where the file is new. Raises UserError if it cannot be written, or has
    other columns."""
    if not results:
        return
    names = [field.name for field in fields(results[0])]
    new = _is_new(path, names)
    try:
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(names)
            for result in results:
                values = asdict(result)
                writer.writerow([json.dumps(v) if isinstance(v, dict) else v for v in (values[n] for n in names)])
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None






def read_json(path: str) -> list[dict[str, Any]]:
    """The results in a file. Raises UserError if it is none."""
    try:
        with reading(Path(path)):
            refuse_special(Path(path))
            data = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{shown(path)} is not a file of results: it is not JSON.") from None
    if not isinstance(data, list) or not data:
        raise UserError(f"{path} is not a file of results: it is not a list of objects.")
    for number, result in enumerate(data):
        wrong = _wrong(result)
        if wrong:
            raise UserError(f"{path} is not a file of results: object {number} {wrong}.")
    return data


def _wrong(result: Any) -> str:
    """Why this is not one of the results, in a few words; empty if it is."""
    needed = ["backend", "threads", "dtype", "ms_median", "fraction_of_peak", "cpu"]
    if not isinstance(result, dict):
        return f"has no {needed[0]!r}"
    if "kernel" in result:
        needed.append("size")
    for name in needed:
        if name not in result:
            return f"has no {name!r}"
    for name in ("ms_median", "fraction_of_peak"):
        if not isinstance(result[name], int | float) or not 1e-300 < result[name] < 1e300:
            return f"has {shown(repr(result[name]))} for {name!r}"
    for name in (*IDENTITY, "cpu", "date"):
        if not isinstance(result.get(name), str | int | float | None):
            return f"has {shown(repr(result[name]))} for {name!r}"
    return ""


@dataclass(frozen=True)
class Pair:
    """The same measurement in two files."""

    what: str
    who: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """Above 1: b is so many times as fast."""
        return float(self.a["ms_median"]) / float(self.b["ms_median"])


def pairs(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> tuple[list[Pair], int]:
    """What stands in both, and how many results stand in one only. Of equal ones the last counts."""

    def keyed(results: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {tuple(result.get(name) for name in IDENTITY): result for result in results}

    first, second = keyed(a), keyed(b)
    found = [Pair(*describe(first[key]), first[key], second[key]) for key in first if key in second]
    return found, len(first) + len(second) - 2 * len(found)


def describe(result: Mapping[str, Any]) -> tuple[str, str]:
    """A measurement in a few words, without the machine: what was measured, and by whom."""
    threads = f"{result['threads']} thread{'s' if result['threads'] != 1 else ''}"
    who = f"{result['backend']}, {threads}, {result['dtype']}"
    if "kernel" in result:
        return f"{result['kernel']}  {result['size']}", who + (", cold" if result.get("cold") else "")
    size = ", ".join(f"{name} {result.get(name)}" for name in ("ctx", "dim", "layers", "heads", "batch", "vocab"))
    return f"A training step: {size}", who
