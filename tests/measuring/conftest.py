"""What the tests of measuring share."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_benches import SMALL

from bevia_fast.commands.main import main


@pytest.fixture(scope="session")
def step_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with step.json and step.csv, the results of a short `bench step`."""
    folder = tmp_path_factory.mktemp("bench")
    line = ["bench", "step", *SMALL, "--threads", "1", "--json", str(folder / "step.json"), "--csv",
            str(folder / "step.csv")]  # fmt: skip
    assert main(line) == 0
    return folder
