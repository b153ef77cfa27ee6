"""The results of measurements, how they are written and read, and how two files of them are paired."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import STANDARD
from ..errors import UserError, counted, shown
from ..files import (
    check_writable,
    read_standard_input,
    reading,
    refuse_special,
    write_text,
    write_to_standard_output,
)


@dataclass(frozen=True)
class StepResult:
    """The training step of one competitor: a row of the table, and an object in the JSON file.

    Times are in milliseconds; `first_step_s` is in seconds and includes compilation. `gflops` counts matrix products
    only, see `training_step.StepSize.flops`. `peak_gflops` is the highest peak of the vector units measured in the same
    run with the same number of threads. `peak_rss_mb` is the peak memory of the process during the steps.
    `over_bare_mb` is that less the memory of the process with everything loaded but the model; 0 if not measured.
    `accumulate` is the number of batches per step; `variant` is that of `training_step.StepSize`.
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
    dropout: float = 0.0
    accumulate: int = 1
    recompute: bool = False
    variant: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str = ""
    date: str = ""


@dataclass(frozen=True)
class KernelResult:
    """A kernel of one backend at one size.

    Times are in milliseconds, `first_call_s` in seconds and including compilation. `flops` and `bytes` follow the
    contract's cost model. `roof_gflops` is the lower of the peak of the vector units and the rate that the cache or
    memory holding its arrays can feed, both as the highest values measured in the same run, the latter with a triad
    over arrays of `triad_bytes`. `peak_rss_mb` is the peak memory of the process since it made the arguments.
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
    triad_bytes: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    cpu: str = ""
    date: str = ""


@dataclass
class StepReport:
    """Results of training steps, with what to print below them."""

    results: list[StepResult] = field(default_factory=list)
    checked: str = ""  # how far the competitors agree, in words
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False  # by Ctrl-C; the results are those until then


Result = StepResult | KernelResult

# Two results with the same values here are the same measurement, perhaps on two machines.
IDENTITY = ("kernel", "size", "backend", "threads", "dtype", "ctx", "dim", "layers", "heads", "batch", "vocab", "cold",
            "dropout", "accumulate", "recompute", "variant")  # fmt: skip
# What earlier versions did not write was the same in all their results.
SINCE = {"dropout": 0.0, "accumulate": 1, "recompute": False, "variant": ""}


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def highest_peaks(results: Sequence[Result]) -> dict[int, float]:
    """Return the highest peak in GFLOP/s for each number of threads."""
    found: dict[int, float] = {}
    for result in results:
        found[result.threads] = max(found.get(result.threads, 0.0), result.peak_gflops)
    return found


def peaks(results: Sequence[Result]) -> str:
    """Return the highest peak for each number of threads, in words."""
    found = highest_peaks(results)
    return ", ".join(f"{peak:.0f} GFLOP/s with {counted(n, 'thread')}" for n, peak in found.items())


def write_json(path: str, figures: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object, or a list of them, to a file. Raises UserError if the file cannot be written."""
    write_text(path, json.dumps(figures, indent=1) + "\n")


def append_json(path: str, results: Sequence[Result]) -> None:
    """Append the results to the JSON list in a file, which is created if it does not exist.

    A path of - is standard output, to which the results alone are written. Raises UserError if the file cannot be
    written or holds something else.
    """
    before = read_json(path) if path != STANDARD and _has_content(path) else []
    write_text(path, json.dumps([*before, *(asdict(result) for result in results)], indent=1) + "\n")


def check_results_files(json_path: str, csv_path: str, kind: type, *others: str) -> None:
    """Check that results of this kind can be appended to the files, and the `others` be written, before anything is
    measured. Raises UserError."""
    check_writable(json_path, csv_path, *others)
    if json_path != STANDARD and _has_content(json_path):
        read_json(json_path)
    if csv_path and csv_path != STANDARD:
        _needs_header(csv_path, [field.name for field in fields(kind)])


def _has_content(path: str) -> bool:
    return bool(path) and Path(path).is_file() and Path(path).stat().st_size > 0


def _needs_header(path: str, names: Sequence[str]) -> bool:
    """Whether a CSV file is new or empty. Raises UserError if it has a different header."""
    try:
        with open(path, encoding="utf-8", newline="") as existing:
            first = existing.readline().rstrip("\r\n")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}.") from None
    if first and first != ",".join(names):
        raise UserError(f"{path} has other columns than these results; choose another file.")
    return not first


def append_csv(path: str, results: Sequence[Result]) -> None:
    """Append a row per result to a CSV file, which gets a header if it is new.

    Raises UserError if the file cannot be written or has other columns.
    """
    if not results:
        return
    names = [field.name for field in fields(results[0])]
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    if path == STANDARD or _needs_header(path, names):
        writer.writerow(names)
    for result in results:
        values = asdict(result)
        writer.writerow([json.dumps(v) if isinstance(v, dict) else v for v in (values[n] for n in names)])
    if path == STANDARD:
        write_to_standard_output(rows.getvalue().encode())
        return
    try:
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(rows.getvalue())
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None


def read_json(path: str) -> list[dict[str, Any]]:
    """Return the results in a JSON file, or on standard input for a path of -. Raises UserError if it holds something
    else."""
    try:
        if path == STANDARD:
            data = json.loads(read_standard_input("Results"))
        else:
            with reading(Path(path)):
                refuse_special(Path(path))
                data = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError):
        raise UserError(f"{shown(path)} is not a results file: it is not JSON.") from None
    if not isinstance(data, list) or not data:
        raise UserError(f"{path} is not a results file: it is not a list of objects.")
    for number, result in enumerate(data):
        flaw = _flaw(result)
        if flaw:
            raise UserError(f"{path} is not a results file: object {number} {flaw}.")
    return data


def _flaw(result: Any) -> str:
    """Return why an object is not a result, in a few words; empty if it is one."""
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
    """One measurement that is in two files."""

    what: str
    who: str
    a: Mapping[str, Any]
    b: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """How many times as fast b is as a."""
        return float(self.a["ms_median"]) / float(self.b["ms_median"])


def pairs(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> tuple[list[Pair], int]:
    """Return the measurements that are in both lists, and the number of those that are in only one. If a list has the
    same measurement several times, the last counts."""

    def keyed(results: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {
            tuple(result.get(name, None if "kernel" in result else SINCE.get(name)) for name in IDENTITY): result
            for result in results
        }

    first, second = keyed(a), keyed(b)
    found = [Pair(*describe(first[key]), first[key], second[key]) for key in first if key in second]
    return found, len(first) + len(second) - 2 * len(found)


def extras(result: Mapping[str, Any]) -> str:
    """Return in words what a training step has beside its sizes, each part after a comma."""
    numbers = ("dropout", "accumulate")
    found = [f"{name} {result[name]}" for name in numbers if result.get(name, SINCE[name]) != SINCE[name]]
    found += ["recompute"] * bool(result.get("recompute")) + ([str(result["variant"])] if result.get("variant") else [])
    return "".join(f", {part}" for part in found)


def describe(result: Mapping[str, Any]) -> tuple[str, str]:
    """Return in words what was measured, and which backend, threads and dtype computed it."""
    threads = result["threads"]
    who = f"{result['backend']}, {threads} {'thread' if threads == 1 else 'threads'}, {result['dtype']}"
    if "kernel" in result:
        return f"{result['kernel']}  {result['size']}", who + (", cold" if result.get("cold") else "")
    size = ", ".join(f"{name} {result.get(name)}" for name in ("ctx", "dim", "layers", "heads", "batch", "vocab"))
    size += extras(result)
    return f"A training step: {size}", who
