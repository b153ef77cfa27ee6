"""Machine code, and its hot loops."""

from __future__ import annotations

import itertools

import pytest

from bevia_fast.commands.main import main
from bevia_fast.measuring.assembly import Loop, loops
from bevia_fast.measuring.options import ProfileKernelConfig

X86 = """
	.text
main:
	xorl	%eax, %eax
	.p2align	4
.LBB0_1:                                # =>This Loop
	movq	8(%rsp), %rdi
.LBB0_2:
	vmovups	(%rdi,%rax,4), %zmm3
	vmovups	64(%rsp), %zmm4                 # 64-byte Reload
	vfmadd231ps	(%rsi){1to16}, %zmm3, %zmm0
	vfmadd231ps	%zmm4, %zmm3, %zmm1
	vaddps	%zmm0, %zmm1, %zmm2
	vmovups	%zmm2, (%rdx)
	addq	$16, %rax
	cmpq	%rcx, %rax
	jl	.LBB0_2
	decq	%r8
	jne	.LBB0_1
	retq
"""
ARM = """
.LBB0_2:
	ldr	q1, [x0], #16
	ldr	q2, [sp, #32]
	fmla	v0.4s, v1.4s, v2.s[0]
	fadd	v3.4s, v0.4s, v1.4s
	str	q3, [x1], #16
	subs	x8, x8, #1
	b.ne	.LBB0_2
"""


def test_loops_are_read() -> None:
    (loop,) = loops(X86)  # only the inner one
    assert (loop.instruction_set, loop.vector_bits) == ("AVX-512", 512)
    assert (loop.fmas, loop.arithmetic, loop.loads, loop.stores, loop.spills) == (2, 1, 2, 1, 1)
    assert loop.instructions == 9
    (loop,) = loops(X86.replace("zmm", "ymm"))
    assert (loop.instruction_set, loop.vector_bits) == ("AVX2", 256)
    # %rbp addresses the stack only in a function that uses it as frame pointer
    indexed = X86.replace("(%rsi){1to16}", "(%rsi,%rbp){1to16}").replace("(%rdi,%rax,4)", "(%rbp,%rax,4)")
    assert [(loop.loads, loop.spills) for loop in loops(indexed)] == [(2, 1)]
    framed = indexed.replace("main:", "main:\n\tmovq\t%rsp, %rbp")
    assert [(loop.loads, loop.spills) for loop in loops(framed)] == [(1, 2)]
    zeroed = X86.replace("vaddps	%zmm0, %zmm1, %zmm2", "vxorps	%zmm2, %zmm2, %zmm2")
    assert [loop.arithmetic for loop in loops(zeroed)] == [0]
    (loop,) = loops(ARM)
    assert (loop.instruction_set, loop.vector_bits) == ("NEON", 128)
    assert (loop.fmas, loop.arithmetic, loop.loads, loop.stores, loop.spills) == (1, 1, 1, 1, 1)
    assert loops("nothing\n") == []


def test_the_tiles_of_the_product_are_found_in_its_machine_code() -> None:
    """A tile has one accumulator per row and vector, so its loop has a multiple of that many multiply-adds."""
    from bevia_fast.commands.hot_loops import product_asm
    from bevia_fast.kernels.numba_jit._runtime.target import TARGET

    if not TARGET.fma:
        pytest.skip("this CPU has no fused multiply-add")
    heights = [*TARGET.tile_rows.items(), *TARGET.rest_rows.items()]
    tiles = {rows * vectors for vectors, rows in heights}
    found = [loop for loop in loops(product_asm("float32")) if loop.fmas]
    assert found
    for loop in found:
        assert loop.vector_bits == 8 * TARGET.vector_bytes
        assert any(loop.fmas % tile == 0 for tile in tiles)


def test_the_loops_of_the_tiles_begin_at_cache_lines() -> None:
    from bevia_fast.commands.hot_loops import product_asm
    from bevia_fast.kernels.memory import CACHE_LINE
    from bevia_fast.kernels.numba_jit._runtime.target import TARGET

    lines = [line.split() for line in product_asm("float32").splitlines()]
    aligned = [
        label for directive, label in itertools.pairwise(lines)
        if directive == [".p2align", str(CACHE_LINE.bit_length() - 1)] and label[0].startswith((".LBB", "LBB"))
    ]  # fmt: skip
    assert len(aligned) >= len(TARGET.tile_rows) + len(TARGET.rest_rows)  # the compiler may split a loop into several


def test_hot_loops_of_a_kernel() -> None:
    from bevia_fast.commands.hot_loops import hot_loops
    from bevia_fast.kernels.numba_jit._runtime.target import TARGET

    found = list(hot_loops("squared_norm", ProfileKernelConfig(("squared_norm",))))
    assert [name for name, _ in found] == ["_squared_norm"]
    assert found[0][1].vector_bits == 8 * TARGET.vector_bytes
    assert found[0][1].loads


def test_the_loop_that_matters_is_shown_first_and_the_others_on_request() -> None:
    """Multiply-adds decide, however many other instructions a loop has."""
    from bevia_fast.commands.hot_loops import _work, listings

    def loop(name: str, fmas: int, arithmetic: int) -> Loop:
        return Loop((name,), "AVX-512", 512, fmas, arithmetic, 0, 0, 0)

    product, edge, sums = loop("product", 48, 0), loop("edge", 24, 0), loop("sums", 4, 90)
    assert sorted([sums, edge, product], key=_work, reverse=True) == [product, edge, sums]
    found = {"forward": [("tile 1", product), ("tile 2", edge)], "backward": [("tile 1", product), ("sum", sums)]}
    assert listings(found, False) == ([("forward: tile 1", product)], 2)
    names = [title for title, _ in listings(found, True)[0]]
    assert names == ["forward: tile 1", "forward: tile 2", "backward: sum"]
    assert listings({"copies": []}, False) == ([], 0)


def test_asm_prints_one_loop_of_a_kernel_unless_all_are_requested(capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for option in ([], ["--all-loops"]):
        assert main(["profile", "linear_forward", "--asm", *option]) == 0
        lines.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("linear_forward: ")])
    assert len(lines[0]) == 1
    assert len(lines[1]) > 2
    assert lines[0][0] == lines[1][0]
