"""The lines of metrics.jsonl: what a valid one is, and what can be kept of a damaged file."""

from __future__ import annotations

import bisect
import json
import math
from typing import Any

from ..reporter import Record

VALUES = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s")  # every record has them; null if there is none
MOST_STEPS = 1 << 50
MOST_LINE = 1 << 16  # bytes
MOST_TEXT = 1000  # characters, such as the name of a tensor


def valid_record(found: Any) -> Record:
    """Return a record from parsed JSON, with None for values that are missing.

    Raises ValueError if it is not an object with a step, finite numbers and short texts.
    """
    if not isinstance(found, dict):
        raise ValueError("a record is not an object")
    step = found.get("step")
    if type(step) is not int or not 0 <= step < MOST_STEPS:
        raise ValueError("a record has no valid step")
    for name, value in found.items():
        if isinstance(value, str) and name not in VALUES:
            valid = len(value) <= MOST_TEXT
        else:
            valid = value is None or (type(value) is bool and name not in VALUES) or is_finite(value)
        if not valid:
            raise ValueError(f"the {name} of step {step} is invalid")
    return {"step": step, **dict.fromkeys(VALUES), **found}


def is_finite(value: Any) -> bool:
    """Return whether a value from parsed JSON is a number that a float can hold."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # such as 10**400
        return False


def read_line(line: bytes) -> Record:
    """Return the record of a line. Raises ValueError or RecursionError if it is damaged."""
    if len(line) > MOST_LINE:
        raise ValueError(f"a line has {len(line):,} bytes")
    return valid_record(json.loads(line))


def up_to(content: bytes, step: int) -> tuple[list[bytes], bool]:
    """Return the intact lines of metrics.jsonl up to `step`, and whether lines up to it are damaged or out of order.

    Lines of later steps, and an incomplete last line, are what an interruption leaves behind; they are no damage.
    """
    *lines, _ = content.split(b"\n")
    intact: list[tuple[int, int]] = []  # (number of the line, its step)
    wrong: list[int] = []  # numbers of lines
    for number, line in enumerate(lines):
        try:
            found = read_line(line)["step"]
        except (ValueError, RecursionError):
            wrong.append(number)
        else:
            if found <= step:
                intact.append((number, found))
    kept = [intact[index] for index in _ascending([found for _, found in intact])]
    last, reached = kept[-1] if kept else (-1, -1)
    between = last + 1 > len(kept)  # lines before the last one that is kept
    damaged = between or (reached < step and bool(wrong))
    return [lines[number] + b"\n" for number, _ in kept], damaged


def _ascending(steps: list[int]) -> list[int]:
    """Return the indices of the longest subsequence that ascends: one wrong step must not cost the others."""
    tails: list[int] = []  # the least step that ends a subsequence of each length
    ends: list[int] = []  # its index
    before: list[int] = []  # for each index, the one before it in its subsequence
    for index, step in enumerate(steps):
        length = bisect.bisect_left(tails, step)
        before.append(ends[length - 1] if length else -1)
        tails[length : length + 1] = [step]
        ends[length : length + 1] = [index]
    chain, index = [], ends[-1] if ends else -1
    while index >= 0:
        chain.append(index)
        index = before[index]
    return chain[::-1]
