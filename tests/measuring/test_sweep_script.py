"""bench/sweep.py: which runs it makes, and that it goes on where it was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "sweep.py"


@pytest.fixture(scope="module")
def sweep() -> Any:
    spec = importlib.util.spec_from_file_location("sweep_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_combinations(sweep: Any) -> None:
    found = sweep.combinations(["dim=64", "bias=False"], ["lr=1e-3,4e-3", "min_lr=lr/10,0.0", "optimizer=muon"])
    assert [(each["lr"], each["min_lr"]) for each in found] == [
        (1e-3, 1e-4), (1e-3, 0.0), (4e-3, pytest.approx(4e-4)), (4e-3, 0.0)
    ]  # fmt: skip
    assert all((each["dim"], each["bias"], each["optimizer"]) == (64, False, "muon") for each in found)


def test_what_is_done_is_not_done_again(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "sweep.jsonl"
    text.write_text("the cat sat on the mat. " * 60)
    sizes = ["steps=2", "ctx=8", "dim=8", "warmup=1"]
    words = ["--preset", "tiny", "--set", *sizes, "--data", str(text), "--out", str(out)]
    trained, calls = sweep.trained, []
    monkeypatch.setattr(sweep, "trained", lambda config: calls.append(config) or trained(config))
    for rates, made in (("lr=1e-3", 2), ("lr=1e-3,4e-3", 2)):
        calls.clear()
        monkeypatch.setattr("sys.argv", ["sweep.py", *words, "--vary", rates, "--seeds", "1", "2"])
        assert sweep.main() == 0
        assert len(calls) == made
    assert {(config.lr, config.seed) for config in calls} == {(4e-3, 1), (4e-3, 2)}
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 4
    assert all(1.0 < record["val_loss"] < 4.0 for record in records)
    monkeypatch.setattr("sys.argv", ["sweep.py", "--table", "--out", str(out)])
    capsys.readouterr()
    assert sweep.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 2  # the mean of two seeds in each
