"""Imports in tests: those that succeed, and those that leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevia_fast.commands.main import main
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.trained import Run


def brought_in(source: Path, *options: str) -> Run:
    out = source.parent / "imported"
    assert main(["import", str(source), "--out", str(out), *options]) == 0
    return Run.load(out, "numpy")


def refused(capsys: pytest.CaptureFixture[str], source: Path, *options: str) -> str:
    """Return the error of an import that leaves nothing behind."""
    before = sorted(source.parent.rglob("*"))
    capsys.readouterr()
    assert main(["import", str(source), "--out", str(source.parent / "imported"), *options]) == 2
    assert sorted(source.parent.rglob("*")) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def same(run: Run, weights: Parameters, tolerance: float = 0.0) -> None:
    """Assert that a run has these weights."""
    assert run.model.parameters.keys() == weights.keys()
    for name, view in weights.items():
        assert abs(run.model.parameters[name] - view).max() <= tolerance * abs(view).max(), name
