"""What is taken from the code that LLVM writes for a CPU."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from bevia_fast.kernels.numba_jit._runtime import target


@pytest.mark.skipif(not llvm.get_process_triple().startswith("x86_64"), reason="these are CPUs of another kind")
@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("x86-64", "plain"),
        ("sandybridge", "plain"),  # AVX without FMA
        ("haswell", "avx2"),
        ("znver3", "avx2"),
        ("knl", "avx2"),  # AVX-512 without the instructions that exp takes
        ("skylake-avx512", "avx512"),
        ("znver4", "avx512"),
    ],
)
def test_instructions_by_cpu(cpu: str, name: str) -> None:
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu)
    assert target._detect(machine) == target.TARGETS[name]


def test_accumulators_fit_into_the_registers() -> None:
    for each in target.TARGETS.values():
        for rows in (each.tile_rows, each.rest_rows):
            assert all(vectors * (height + 1) + 1 <= each.registers for vectors, height in rows.items())
