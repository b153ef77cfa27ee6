"""Files of results: appending, reading and comparing them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_benches import SMALL

from bevia_fast.commands.main import main
from bevia_fast.errors import UserError
from bevia_fast.measuring.results import StepResult, append_csv, append_json, write_json


def test_compare(step_results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((step_results / "step.json").read_text())
    other = [result | {"ms_median": result["ms_median"] / 2, "cpu": "another"} for result in results]
    other[0]["threads"] = 77
    (step_results / "other.json").write_text(json.dumps(other))
    assert main(["bench", "compare", str(step_results / "step.json"), str(step_results / "other.json")]) == 0
    out = capsys.readouterr().out
    assert "A training step: ctx 8, dim 16, layers 1" in out
    assert "  numba, 1 thread, float32  " in out
    assert "2.00" in out
    assert "another" in out
    assert "2 measurements are in only one of the files." in out


def test_csv_appends_and_refuses_other_columns(step_results: Path, tmp_path: Path) -> None:
    result = StepResult(**json.loads((step_results / "step.json").read_text())[0])
    path = tmp_path / "all.csv"
    for _ in range(2):
        append_csv(str(path), [result])
    assert len(path.read_text().splitlines()) == 3
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        append_csv(str(path), [result])


def test_json_appends_and_refuses_other_contents(
    step_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((step_results / "step.json").read_text())
    path = tmp_path / "all.json"
    for _ in range(2):
        append_json(str(path), [StepResult(**result) for result in results])
    assert json.loads(path.read_text()) == [*results, *results]
    path.write_text('{"a": 1}')
    assert main(["bench", "step", *SMALL, "--json", str(path)]) == 2  # before anything is measured
    assert "is not a results file" in capsys.readouterr().err
    path.write_text("a,b\n1,2\n")
    assert main(["bench", "kernels", "--csv", str(path)]) == 2
    assert "other columns" in capsys.readouterr().err


def test_a_failed_append_keeps_the_results_in_the_file(
    step_results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, link = tmp_path / "all.json", tmp_path / "link.json"
    path.write_bytes((step_results / "step.json").read_bytes())
    link.symlink_to(path)
    results = [StepResult(**result) for result in json.loads(path.read_text())]

    def full(handle: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UserError, match="No space left"):
            append_json(str(path), results)
    assert path.read_bytes() == (step_results / "step.json").read_bytes()
    append_json(str(link), results)  # a link stays a link
    assert link.is_symlink()
    assert len(json.loads(path.read_text())) == 4
    assert {file.name for file in tmp_path.iterdir()} == {"all.json", "link.json"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_json(str(path), {"a": 1})
    assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert path.is_fifo()


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"backend": "numba"}]', "\x00"])
def test_files_without_results_are_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main(["bench", "compare", str(path), str(path)]) == 2
    assert "bad.json is not a results file" in capsys.readouterr().err
