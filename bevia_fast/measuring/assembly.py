"""Machine code read as text: its loops, and what is in them. x86-64 (AT&T syntax) and AArch64, as LLVM writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"^(\.?L\w+):")
_JUMP = re.compile(r"^(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.?L\w+)\s*$")
_X86_FMA = re.compile(r"^vfn?m(?:add|sub|addsub|subadd)\d*p[sd]$")
_X86_ARITHMETIC = re.compile(
    r"^v?(?:add|sub|mul|div|max|min|sqrt|scalef|rndscale|round|rcp14|rsqrt14|cvt\w*2|and|andn|or|xor|cmp\w*)p[sd]\w*$"
    r"|^vp(?:add|sub|mull|sll|srl|sra|xor|and|or|ternlog)\w*$"
)
_ARM_FMA = re.compile(r"^fml[as]$")
_ARM_ARITHMETIC = re.compile(r"^f(?:add|sub|mul|div|max|min|maxnm|minnm|sqrt|rint\w|cvt\w+)$")
_WIDTHS = (("zmm", 512, "AVX-512"), ("ymm", 256, "AVX2"), ("xmm", 128, "SSE"))


@dataclass(frozen=True)
class Loop:
    """An innermost loop. `spills`: instructions that read or write the stack, where values wait that found no
    register; `loads` counts operands in memory too, and both without the stack's."""

    lines: tuple[str, ...]
    instruction_set: str
    vector_bits: int
    fmas: int
    arithmetic: int  # other vector instructions that compute
    loads: int
    stores: int
    spills: int

    @property
    def instructions(self) -> int:
        return sum(not _LABEL.match(line) for line in self.lines)


def loops(text: str) -> list[Loop]:
    """The innermost loops, those that compute most first."""
    lines = [line for line in (_clean(raw) for raw in text.splitlines()) if line]
    labels = {match[1]: number for number, line in enumerate(lines) if (match := _LABEL.match(line))}
    spans = []
    for number, line in enumerate(lines):
        jump = _JUMP.match(line)
        start = labels.get(jump[1]) if jump else None
        if start is not None and start <= number:
            spans.append((start, number))
    innermost = [
        (start, end) for start, end in dict.fromkeys(spans)
        if not any((s, e) != (start, end) and start <= s and e <= end for s, e in spans)
    ]  # fmt: skip
    found = [_read(tuple(lines[start : end + 1]), _frame(lines, start)) for start, end in innermost]
    return sorted(found, key=lambda loop: (-loop.fmas, -loop.arithmetic, -loop.vector_bits))


def _clean(raw: str) -> str:
    """A line without comments; nothing of a directive."""
    line = re.sub(r"\s(?:#|//).*$", "", raw).strip()
    if _LABEL.match(line):
        return line
    return "" if line.startswith((".", "#", "//")) else re.sub(r"\s+", " ", line)


def _frame(lines: list[str], start: int) -> bool:
    """Whether the function around a line keeps the stack's address in %rbp, else a register like others."""
    for line in reversed(lines[:start]):
        if re.match(r"movq %rsp, %rbp$", line):
            return True
        if line.endswith(":") and not _LABEL.match(line):  # where the function begins
            return False
    return False


def _read(lines: tuple[str, ...], frame: bool) -> Loop:
    fmas = arithmetic = loads = stores = spills = 0
    vectors = " ".join(lines)
    arm = re.search(r"\bv\d+\.\d+[sdbh]\b|\[[xs]", vectors) is not None
    for line in lines:
        if _LABEL.match(line):
            continue
        name, _, rest = line.partition(" ")
        fmas += bool((_ARM_FMA if arm else _X86_FMA).match(name))
        arithmetic += bool((_ARM_ARITHMETIC if arm else _X86_ARITHMETIC).match(name) and not _clears(name, rest))
        reads, writes, stack = _arm_memory(name, rest) if arm else _x86_memory(name, rest, frame)
        if stack:
            spills += 1
        else:
            loads += reads
            stores += writes
    if arm:
        named = "NEON" if re.search(r"\bv\d+\.", vectors) else "scalar"
        return Loop(lines, named, 128 if named == "NEON" else 0, fmas, arithmetic, loads, stores, spills)
    packed = " ".join(line for line in lines if re.match(r"v?\w+(?:p[sd]|u8|dqu\w*|dqa\w*|[dq])\b", line))
    for register, bits, name in _WIDTHS:
        if re.search(rf"%{register}\d", packed):
            own = "AVX" if name == "SSE" and re.search(r"\bv\w+p[sd] ", packed) else name
            return Loop(lines, own, bits, fmas, arithmetic, loads, stores, spills)
    return Loop(lines, "scalar", 0, fmas, arithmetic, loads, stores, spills)


def _clears(name: str, rest: str) -> bool:
    """Whether an instruction is x86's way to set a register to 0."""
    return "xor" in name and len(set(rest.replace(" ", "").split(","))) == 1


def _x86_memory(name: str, rest: str, frame: bool) -> tuple[int, int, bool]:
    """(reads, writes, whether it is the stack) of an instruction; its last operand is where the result goes."""
    if name.startswith(("lea", "nop", "prefetch", "j", "call")):
        return 0, 0, False
    operands = re.findall(r"[^,(]*\([^)]*\)(?:\s*\{[^}]*\})*|[^,]+", rest)
    memory = ["(" in operand for operand in operands]
    if not any(memory):
        return 0, 0, False
    bases = re.findall(r"\((%\w+)", rest)
    stack = "%rsp" in bases or (frame and "%rbp" in bases)
    last = memory[-1]
    compares = name.startswith(("cmp", "test", "vucomi", "ucomi"))
    moves = name.startswith(("mov", "vmov", "vextract", "vpextr"))
    reads = int(any(memory[:-1]) or (last and (compares or not moves)))
    return reads, int(last and not compares), stack


def _arm_memory(name: str, rest: str) -> tuple[int, int, bool]:
    stack = re.search(r"\[(?:sp|x29)\b", rest) is not None
    return int(name.startswith("ld")), int(name.startswith("st")), stack
