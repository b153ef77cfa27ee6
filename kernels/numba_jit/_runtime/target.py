"""The instruction set that Numba compiles for, and the register tiles that suit it.

It is found by looking at the assembly that LLVM writes for small vector functions, so it follows NUMBA_CPU_NAME and
NUMBA_CPU_FEATURES.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

PROBE = """
target triple = "{triple}"
define <16 x float> @probe(<16 x float> %a, <16 x float> %b, <16 x float> %c) {{
  %r = call <16 x float> @llvm.fma.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %c)
  ret <16 x float> %r
}}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
define <8 x double> @convert(<8 x i64> %a) {{
  %r = sitofp <8 x i64> %a to <8 x double>
  ret <8 x double> %r
}}
"""

BF16_PROBE = """
target triple = "{triple}"
define <16 x bfloat> @round(<16 x float> %a) {{
  %r = fptrunc <16 x float> %a to <16 x bfloat>
  ret <16 x bfloat> %r
}}
"""


@dataclass(frozen=True)
class Target:
    """An instruction set as the kernels see it.

    `tile_rows[nv]` is the height of a register tile nv vectors wide: the accumulators, nv vectors of the right operand
    and one broadcast element of the left one have to fit into the registers, with enough accumulators to hide the
    latency of FMA. `rest_rows[nv]` is the height of the smaller tiles for the remaining rows.
    """

    name: str
    vector_bytes: int
    registers: int  # for vectors
    fma: bool
    scalef: bool  # has instructions for x * 2^n, and for x minus the nearest integer
    tile_rows: dict[int, int]
    rest_rows: dict[int, int]
    bf16: bool = False  # has AVX512_BF16: products of pairs of bfloat16, summed in float32

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes in one vector."""
        return self.vector_bytes // itemsize


# Tiles measured on Zen 4 and Zen 5 (AVX-512); see bench/NOTES.md.
TARGETS = {  # "plain" is the first x86-64
    "avx512": Target("avx512", 64, 32, True, True, {1: 12, 2: 12, 3: 8, 4: 6}, {1: 4, 2: 4, 3: 4, 4: 4}),
    "avx2": Target("avx2", 32, 16, True, False, {1: 8, 2: 6, 3: 4, 4: 2}, {1: 4, 2: 3, 3: 2, 4: 1}),
    "neon": Target("neon", 16, 32, True, False, {1: 8, 2: 8, 3: 8, 4: 6}, {1: 4, 2: 4, 3: 4, 4: 3}),
    "plain": Target("plain", 16, 16, False, False, {1: 6, 2: 4, 3: 3, 4: 2}, {1: 3, 2: 2, 3: 1, 4: 1}),
}


def _detect(machine: llvm.TargetMachine) -> Target:
    assembly = machine.emit_assembly(llvm.parse_assembly(PROBE.format(triple=llvm.get_process_triple())))
    if "vfmadd" in assembly:  # the conversion is of AVX-512DQ, which the first CPUs with AVX-512 lack
        if "zmm" in assembly and "vcvtqq2pd" in assembly:
            rounding = machine.emit_assembly(
                llvm.parse_assembly(BF16_PROBE.format(triple=llvm.get_process_triple()))
            )
            return replace(TARGETS["avx512"], bf16="vcvtneps2bf16" in rounding)
        return TARGETS["avx2"]
    if "fmla" in assembly:
        return TARGETS["neon"]
    return TARGETS["plain"]


TARGET = _detect(cpu_target.target_context.codegen()._tm)


@functools.cache
def panel_vectors(columns: int, itemsize: int) -> int:
    """The width, in vectors, of the panels of a right operand with `columns` columns: the one that keeps the register
    tiles fullest, the widest of equals."""
    total = -(-columns // TARGET.lanes(itemsize))
    return max(
        TARGET.tile_rows, key=lambda nv: (TARGET.tile_rows[nv] * nv * _fill(total, nv), nv)
    )


def _fill(total: int, nv: int) -> float:
    """The share of the register tiles that is used, over all panels."""
    panels = -(-total // nv)
    return total / (panels * nv)
