"""The kernel calls that are measured."""

from __future__ import annotations

import pytest

from bevia_fast.commands.main import main
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.measuring.kernel_jobs import chosen, families, job, letters_of, profile_jobs
from bevia_fast.measuring.options import ProfileKernelConfig


def test_kernels_are_known_by_name() -> None:
    assert chosen(["attention"]) == ["attention_forward", "attention_backward"]
    assert chosen(["adamw", "gelu_backward", "adamw"]) == ["adamw", "gelu_backward"]
    assert chosen(["all"]) == list(OPERATIONS)
    assert [name for names in families().values() for name in names] == list(OPERATIONS)


def test_list_names_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "list"]) == 0
    out = capsys.readouterr().out
    for operation in OPERATIONS:
        assert operation in out


def test_every_kernel_can_be_profiled() -> None:
    jobs = {job.operation: job for job in profile_jobs(ProfileKernelConfig(("all",), out_dim=7, parameters=11))}
    assert list(jobs) == list(OPERATIONS)
    assert all(job.cost("float32").bytes > 0 for job in jobs.values())
    assert (jobs["linear_forward"].dims["OC"], jobs["adamw"].dims["P"]) == (7, 11)
    assert jobs["decode_tokens"].dims["S"] == 1024


def test_memory_of_a_kernel_counts_whole_tables_in_each_process() -> None:
    table = 4 * (1 << 20) * 64  # of which only a few rows are read
    lookup = job("embedding_forward", letters_of(ctx=8, batch=1, heads=1, dim=64, vocab=1 << 20))
    assert lookup.cost("float32").bytes < table / 100
    assert 6 * table < lookup.memory(["numpy", "numba"], "float32") < 6.1 * table
    assert lookup.memory(["numpy", "numba"], "float64") == pytest.approx(2 * lookup.memory(["numpy"] * 2, "float32"))
    # NumPy's arrays of T x T are needed for the comparison, even if only numba is timed
    attention = job("attention_forward", letters_of(ctx=4096, batch=1, heads=4, dim=64, vocab=1))
    squares = 4 * 4 * 4096**2
    assert 6 * squares < attention.memory(["numba"], "float32") < 7 * squares
    assert 12 * squares < attention.memory(["numba", "numpy"], "float32") < 13 * squares
