"""`bevia-fast doctor`: the report that a user sees, and the cache folders that it removes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bevia_fast.commands import doctor
from bevia_fast.commands.main import main
from bevia_fast.kernels.numba_jit._runtime import cache as kernel_cache
from bevia_fast.kernels.numba_jit._runtime import threads as kernel_threads


def bevia(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bevia_fast", *arguments], env={**os.environ, **variables}, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip


def test_report_of_a_working_installation() -> None:
    done = bevia("doctor", OPENBLAS_CORETYPE="Haswell")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("CPU ", "at once", "physical", "available layers: ", "free", "GFLOP/s with 1 thread",
                  "GB/s with", "bevia-fast ", "NumPy ", "llvmlite ", "OPENBLAS_CORETYPE is Haswell",
                  str(kernel_cache.FOLDER), "kernels, ", "writable", "float32", "can halve the speed"):  # fmt: skip
        assert words in done.stdout, words
    again = bevia("doctor", "--no-measure")
    assert again.returncode == 0
    assert "all kernels for float32 were already compiled" in again.stdout
    assert "GFLOP/s" not in again.stdout


def test_advice_where_only_workqueue_is_used() -> None:
    done = bevia("doctor", "--no-measure", NUMBA_THREADING_LAYER="workqueue")
    assert done.returncode == 0, done.stderr
    assert "(workqueue)" in done.stdout
    assert "the slowest one; install libgomp1, libomp, or tbb with pip.\n" in done.stdout


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NUMBA_THREADING_LAYER": "none"}, "NUMBA_THREADING_LAYER is none, which does not load here; there are "),
        ({"NUMBA_THREADING_LAYER_PRIORITY": "omp"}, "must hold omp, tbb, workqueue, in any order."),
    ],
)
def test_an_unavailable_layer_is_reported_in_one_sentence(variables: dict[str, str], words: str) -> None:
    done = bevia("doctor", "--no-measure", **variables)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_kernels_that_do_not_compile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("LLVM:\n  no such instruction")

    monkeypatch.setattr(doctor, "warm_up", fail)
    assert main(["doctor", "--no-measure"]) == 1
    out, err = capsys.readouterr()
    assert "CPU " in out
    assert err == ("bevia-fast: error: The kernels do not compile for float32 on this machine: "
                   "LLVM: no such instruction.\n")  # fmt: skip


def test_clean_removes_other_versions_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEVIA_FAST_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "FOLDER", kernel_cache.all_versions() / kernel_cache.FOLDER.name)
    assert doctor.others() == []
    names = (kernel_cache.FOLDER.name, "0123456789" * 2, "notes")
    kept, old, foreign = (kernel_cache.all_versions() / name for name in names)
    for folder in (kept, old, foreign):
        (folder / "numba_jit").mkdir(parents=True)
        (folder / "numba_jit" / "x.1.nbc").write_bytes(b"1234")
    assert doctor.cache(clean=False)[1:] == [
        ("", "1 kernel, 4 bytes; writable"), ("", "1 of other versions, 4 bytes; --clean removes them"),
    ]  # fmt: skip
    assert doctor.cache(clean=True)[-1] == ("", "removed 1 folder of other versions, 4 bytes")
    assert kept.exists()
    assert foreign.exists()
    assert not old.exists()


def test_layers_are_tried_in_the_order_of_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_threads.numba_config.THREADING_LAYER_PRIORITY == ["omp", "tbb", "workqueue"]
    monkeypatch.setattr(kernel_threads.numba_parallel, "_threading_layer", None)
    for there, expected in (("omp tbb workqueue", "omp"), ("tbb workqueue", "tbb"), ("workqueue", "workqueue")):
        monkeypatch.setattr(kernel_threads, "loads", lambda name, there=there: name in there.split())
        assert kernel_threads.layer() == expected
