"""Timing single kernels: `profile KERNEL`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bevia_fast.commands.main import main
from bevia_fast.kernels.contract import OPERATIONS
from bevia_fast.measuring.results import KernelResult

SIZES = ["--ctx", "32", "--heads", "2", "--head-size", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with k.json and k.png: two kernels, both directions and backends."""
    folder = tmp_path_factory.mktemp("profile")
    line = ["profile", "attention", "layernorm", *SIZES, "--seconds", "0.02"]
    assert main([*line, "--json", str(folder / "k.json"), "--out", str(folder / "k.png")]) == 0
    return folder


def test_each_backend_and_direction_is_compared_with_the_roof(measured: Path) -> None:
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


def test_every_kernel_can_be_measured(tmp_path: Path) -> None:
    """With the options that the model gives it, which travel to another process."""
    line = ["profile", "all", *SIZES, "--batch", "1", "--parameters", "96", "--seconds", "0.001", "--backend", "numba"]
    assert main([*line, "--json", str(tmp_path / "k.json"), "--out", str(tmp_path / "k.png")]) == 0
    assert {result["kernel"] for result in json.loads((tmp_path / "k.json").read_text())} >= {*OPERATIONS}
