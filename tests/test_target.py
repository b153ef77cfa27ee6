"""What is said of each instruction set."""

from __future__ import annotations

from bevia_fast.kernels.numba_jit._simd import target


def test_accumulators_fit_into_the_registers() -> None:
    for each in target.TARGETS.values():
        for rows in (each.tile_rows, each.rest_rows):
            assert all(vectors * (height + 1) + 1 <= each.registers for vectors, height in rows.items())
