"""What is taken from the code that LLVM writes for a CPU."""

from __future__ import annotations

from dataclasses import replace

import llvmlite.binding as llvm
import pytest

from bevia_fast.kernels.numba_jit._runtime import target


@pytest.mark.skipif(not llvm.get_process_triple().startswith("x86_64"), reason="these are CPUs of another kind")
@pytest.mark.parametrize(
    ("cpu", "name", "bf16"),
    [
        ("x86-64", "plain", False),
        ("sandybridge", "plain", False),  # AVX without FMA
        ("haswell", "avx2", False),
        ("znver3", "avx2", False),
        ("knl", "avx2", False),  # AVX-512 without the instructions that exp takes
        ("skylake-avx512", "avx512", False),
        ("znver4", "avx512", True),
        ("cooperlake", "avx512", True),
    ],
)
def test_instructions_by_cpu(cpu: str, name: str, bf16: bool) -> None:
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu)
    assert target._detect(machine) == replace(target.TARGETS[name], bf16=bf16)


def test_accumulators_fit_into_the_registers() -> None:
    for each in target.TARGETS.values():
        for rows in (each.tile_rows, each.rest_rows):
            assert all(vectors * (height + 1) + 1 <= each.registers for vectors, height in rows.items())
