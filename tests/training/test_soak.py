"""Memory and open files do not grow during a long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import python_path

SOAK = """
import os, sys
from pathlib import Path
from bevia_fast import train
from small_runs import Acting, tiny_config
from bevia_fast.training.loop import _Session

steps, settled, backend = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
_Session._draw = lambda self: None  # drawing takes memory, once, at the end
page = os.sysconf("SC_PAGE_SIZE")

class Watching(Acting):
    resident, open_files = {}, set()

    def step(self, record):
        step = record["step"]
        if step >= settled and step % 100 == 0:
            with open("/proc/self/statm") as file:
                self.resident[step] = int(file.read().split()[1]) * page
            self.open_files.add(len(os.listdir("/proc/self/fd")))

watching = Watching()
train(tiny_config(Path(sys.argv[1]), steps=steps, eval_every=500, sample_every=1000, save_every=200, save_seconds=5,
                  backend=backend), watching)
values = list(watching.resident.values())
print(len(values), max(values) - min(values), values[-1] - values[0], len(watching.open_files))
"""


def soak(folder: Path, steps: int, settled: int, backend: str) -> None:
    command = [sys.executable, "-c", SOAK, str(folder), str(steps), str(settled), backend]
    environment = os.environ | {"PYTHONPATH": python_path()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stderr
    count, spread, growth, open_files = map(int, done.stdout.split())
    print(f"{backend}: {steps} steps, {spread / 2**20:.2f} MiB of range, {growth / 2**20:.2f} MiB growth")
    assert count == (steps - settled) // 100 + 1
    assert spread < 2 << 20
    assert open_files == 1


def test_memory_is_flat(tmp_path: Path) -> None:
    soak(tmp_path, 1000, 500, "numpy")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_is_flat_over_20_000_steps(tmp_path: Path, backend: str) -> None:
    soak(tmp_path, 20_000, 2_000, backend)
