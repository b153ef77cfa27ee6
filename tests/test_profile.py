"""`profile`: kernels under roofs, machine code, and the command for a step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Text

from bevia_fast import cli
from bevia_fast.assembly import loops
from bevia_fast.bench_config import ProfileKernelConfig
from bevia_fast.bench_kernels import profile_jobs
from bevia_fast.bench_plots import draw_roofline, draw_scaling
from bevia_fast.bench_results import KernelResult, StepResult
from bevia_fast.kernels.contract import OPERATIONS

SIZES = ["--ctx", "32", "--heads", "2", "--head-size", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with k.json and k.png: two kernels, both directions and backends."""
    folder = tmp_path_factory.mktemp("profile")
    line = ["profile", "attention", "layernorm", *SIZES, "--seconds", "0.02"]
    assert cli.main([*line, "--json", str(folder / "k.json"), "--out", str(folder / "k.png")]) == 0
    return folder


def test_each_backend_and_direction_is_held_against_the_roof(measured: Path) -> None:
    results = [KernelResult(**result) for result in json.loads((measured / "k.json").read_text())]
    assert [(result.kernel, result.backend) for result in results] == [
        (f"{kernel}_{direction}", backend)
        for kernel in ("attention", "layernorm")
        for direction in ("forward", "backward")
        for backend in ("numpy", "numba")
    ]
    for result in results:
        assert result.gflops == pytest.approx(result.flops / result.ms_median / 1e6)
        assert result.intensity == pytest.approx(result.flops / result.bytes)
        fed = result.intensity * result.peak_gbytes_per_s
        assert result.roof_gflops == pytest.approx(min(result.peak_gflops, fed))
        assert result.bound == ("compute" if fed >= result.peak_gflops else "memory")
    assert results[0].flops == 2 * 32 * 33 * 16
    assert (measured / "k.png").read_bytes().startswith(b"\x89PNG")


def result(kernel: str, backend: str, intensity: float, gflops: float) -> KernelResult:
    return KernelResult(
        kernel, backend, 2, "float32", "N=1", {"N": 1}, 1.0, 0.9, 1.1, gflops * 1e6, gflops * 1e6 / intensity,
        intensity, gflops, gflops / intensity, 400.0, 40.0, min(400.0, 40 * intensity), gflops / 400, 0.5, "memory",
        1.0,
    )  # fmt: skip


def test_labels_of_the_roofline_do_not_overlap() -> None:
    """All kernels, forward and backward close to each other, both backends."""
    results = []
    for number, name in enumerate(OPERATIONS):
        for backend, factor in (("numpy", 1.0), ("numba", 1.3)):
            results.append(result(name, backend, 0.25 * 1.4 ** (number // 2), factor * (3 + number // 2)))
    figure = draw_roofline(results)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    (axes,) = figure.axes
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without the lines to the points
    assert len(boxes) >= 0.9 * len(results)
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:i])
    assert "byte" in axes.get_xlabel()
    assert axes.get_ylabel() == "GFLOP/s"
    assert axes.get_title()


def test_roofs_are_labelled_with_the_bytes_that_they_were_measured_with() -> None:
    """At most as much as empties all caches; with cold caches always that much."""
    for cold, nbytes, label in ((False, 8e6, "8 MB"), (False, 8e9, "268 MB"), (True, 8e6, "268 MB")):
        one = replace(result("adamw", "numba", 1.0, 10.0), bytes=nbytes, cold=cold)
        (axes,) = draw_roofline([one]).axes
        assert f"40 GB/s, triad over {label}" in [line.get_label() for line in axes.lines]


def test_scaling_curves_are_labelled() -> None:
    results = [
        StepResult(backend, 2, "float32", ctx, 64, 1, 1, 8, 65, ms * ctx, ms * ctx * 0.9, ms * ctx * 1.2, 1e5, 1e9,
                   10.0, 400.0, 0.025 * ms, 100.0, 1.0)
        for ctx in (64, 128, 256) for backend, ms in (("numpy", 2.0), ("numba", 0.3))
    ]  # fmt: skip
    figure = draw_scaling(results, "ctx")
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_ylabel()
        assert "tokens" in axes.get_xlabel()
        assert [line.get_label() for line in axes.lines] == ["numpy", "numba"]


def test_list_names_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "list"]) == 0
    out = capsys.readouterr().out
    for operation in OPERATIONS:
        assert operation in out


def test_every_kernel_can_be_profiled() -> None:
    jobs = {job.operation: job for job in profile_jobs(ProfileKernelConfig(("all",), out_dim=7, parameters=11))}
    assert list(jobs) == list(OPERATIONS)
    assert all(job.cost("float32").bytes > 0 for job in jobs.values())
    assert (jobs["linear_forward"].dims["OC"], jobs["adamw"].dims["P"]) == (7, 11)
    assert jobs["decode_tokens"].dims["S"] == 1024


def test_step_with_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, figures = tmp_path / "trace.json", tmp_path / "step.json"
    line = ["profile", "step", "--preset", "seed", "--backend", "numpy", "--seconds", "0.3"]
    assert cli.main([*line, "--trace", str(trace), "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    for words in ("attention_backward", "layer 1", "Python between kernels", "all parts", "without the instruments"):
        assert words in out
    assert json.loads(trace.read_text())["traceEvents"]
    found = json.loads(figures.read_text())
    assert sum(row["ms"] for row in found["by_kernel"]) == pytest.approx(found["whole_ms"])


# -------------------------------------------------------------------------------------------------------- machine code

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
    # %rbp is the stack's only in a function that makes it so
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


def test_the_product_is_seen_as_it_was_written() -> None:
    """Each tile has an accumulator for each row and vector, so a multiple of so many multiply-adds."""
    from bevia_fast.kernels.numba_jit._runtime.target import TARGET
    from bevia_fast.profile_asm import product_asm

    if not TARGET.fma:
        pytest.skip("this CPU has no fused multiply-add")
    heights = [*TARGET.tile_rows.items(), *TARGET.rest_rows.items()]
    tiles = {rows * vectors for vectors, rows in heights}
    found = [loop for loop in loops(product_asm("float32")) if loop.fmas]
    assert found
    for loop in found:
        assert loop.vector_bits == 8 * TARGET.vector_bytes
        assert any(loop.fmas % tile == 0 for tile in tiles)


def test_hot_loops_of_a_kernel() -> None:
    from bevia_fast.kernels.numba_jit._runtime.target import TARGET
    from bevia_fast.profile_asm import hot_loops

    found = list(hot_loops("squared_norm", ProfileKernelConfig(("squared_norm",))))
    assert [name for name, _ in found] == ["_squared_norm"]
    assert found[0][1].vector_bits == 8 * TARGET.vector_bytes
    assert found[0][1].loads
