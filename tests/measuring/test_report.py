"""`bench/report.py`, which writes the table of speeds into the README."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_benches import ONE

from bevia_fast.commands.arguments import parse
from bevia_fast.errors import UserError
from bevia_fast.measuring.training_step import StepSize


@pytest.fixture(scope="module")
def report() -> Any:
    path = Path(__file__).parents[2] / "bench" / "report.py"
    spec = importlib.util.spec_from_file_location("report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_is_written_at_its_marker(report: Any, step_results: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n<!-- speed table -->\n\n## Next\n")
    results = report.read(step_results / "step.json")
    for _ in range(2):  # the second replaces the first
        report.write(readme, report.table(results))
    page = readme.read_text()
    assert page.count("| bevia-fast, numba |") == 1
    assert page.index("# Title") < page.index("| bevia-fast, numpy |") < page.index("## Next")
    assert results[0].cpu in page


def test_the_report_states_threads_and_the_peak_of_each_run(report: Any) -> None:
    two = replace(ONE, threads=2, ms_median=1.0, peak_gflops=190.0)
    slower = replace(two, backend="numpy", ms_median=3.0)
    large = replace(two, ctx=128, vocab=9, peak_gflops=210.0, fraction_of_peak=0.25)
    text = report.table([slower, two, ONE, large])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [
        ["ctx 64, dim 64, layers 1, heads 1, batch 8", "bevia-fast, numba", "1", "2", "100,000", "50%", "1.0"],
        ["", "bevia-fast, numba", "2", "1", "100,000", "50%", "1.0"],
        ["", "bevia-fast, numpy", "2", "3", "100,000", "50%", "3.0"],
        ["ctx 128, dim 64, layers 1, heads 1, batch 8, vocab 9", "bevia-fast, numba", "2", "1", "100,000", "25%",
         "1.0"],
    ]
    peaks = "100 GFLOP/s with 1 thread, 190 GFLOP/s with 2 threads, 210 GFLOP/s with 2 threads."
    assert peaks in text


def test_the_report_measures_what_it_names(report: Any) -> None:
    sizes = {}
    for name, line in report.SIZES.items():
        config = parse(["bench", "step", *line.split()])
        size = StepSize.of(config.model(), config.sequences())
        sizes[name] = (size.ctx, size.dim, size.layers, size.heads, size.batch, size.vocab)
    assert sizes == {
        "tiny": (64, 64, 1, 1, 8, 65), "laptop": (64, 128, 4, 4, 12, 65), "baby": (256, 384, 6, 6, 16, 65),
        "long2k": (2048, 256, 4, 4, 2, 65), "long8k": (8192, 256, 4, 4, 1, 65), "gpt2": (64, 768, 12, 12, 4, 50257),
    }  # fmt: skip


def test_the_report_refuses_results_of_kernels(report: Any, tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    kernel = {"kernel": "relu", "size": "N=1", "backend": "numba", "threads": 1, "dtype": "float32", "ms_median": 1.0,
              "fraction_of_peak": 0.1, "cpu": ""}  # fmt: skip
    path.write_text(json.dumps([kernel]))
    with pytest.raises(UserError, match="holds results of other measurements than training steps"):
        report.read(path)
