"""What TensorBoard reads of a run."""

from __future__ import annotations

import errno
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import Acting, tiny_config

from bevia_fast import TensorBoardReporter, UserError, resume, train
from bevia_fast.runs.checkpoint import checkpoints

pytest.importorskip("tensorboard")
pytestmark = [
    pytest.mark.usefixtures("quick_runs"),
    pytest.mark.filterwarnings("default:::tensorboard"),
]


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(folder: Path, name: str) -> dict[int, float]:
    return {event.step: event.value for event in read(folder).Scalars(name)}


def written(history: list[dict[str, Any]], name: str) -> dict[int, Any]:
    return {record["step"]: pytest.approx(record[name], rel=1e-6) for record in history if record[name] is not None}


def test_numbers_samples_and_options(tmp_path: Path) -> None:
    run = train(tiny_config(tmp_path, sample_every=5), TensorBoardReporter())
    folder = run.folder / "tensorboard"
    assert set(read(folder).Tags()["scalars"]) == {"loss", "val_loss", "lr", "grad_norm", "tokens_per_s"}
    for name in ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s"):
        assert scalars(folder, name) == written(run.history, name)
    texts = {tag: read(folder).Tensors(tag) for tag in ("sample", "options")}
    assert [event.step for event in texts["sample"]] == [0, 5, 10]
    sample = texts["sample"][-1].tensor_proto.string_val[0].decode()
    assert sample == "\n".join(f"    {line}" for line in (run.folder / "sample.txt").read_text()[:-1].splitlines())
    assert b"    steps=10,\n" in texts["options"][0].tensor_proto.string_val[0]


def test_a_resumed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """What was written after the checkpoint is replaced, as in metrics.jsonl."""
    class Ending(Exception):
        pass

    def end() -> None:
        raise Ending

    with pytest.raises(Ending):
        train(tiny_config(tmp_path), [TensorBoardReporter(), Acting(8, end)])
    run = tmp_path / "run"
    assert checkpoints(run)[0][0] == 8  # a reporter that fails ends the run, which is saved before
    assert max(scalars(run / "tensorboard", "lr")) == 8
    finished = train(resume(run, steps=10), TensorBoardReporter())
    events = read(run / "tensorboard").Scalars("loss")
    assert [event.step for event in events] == list(range(1, 11))
    assert scalars(run / "tensorboard", "loss") == written(finished.history, "loss")


def test_another_folder_and_several_runs(tmp_path: Path) -> None:
    reporter = TensorBoardReporter(tmp_path / "events")
    train(tiny_config(tmp_path, "first", steps=2), reporter)
    assert set(scalars(tmp_path / "events", "loss")) == {1, 2}
    assert not (tmp_path / "first" / "tensorboard").exists()
    usual = TensorBoardReporter()
    for name in ("second", "third"):
        train(tiny_config(tmp_path, name, steps=2), usual)
        assert set(scalars(tmp_path / name / "tensorboard", "loss")) == {1, 2}


def test_a_skipped_step_has_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bevia_fast.training.step import Trainer

    usual = Trainer.backward
    monkeypatch.setattr(
        Trainer, "backward", lambda self, step: math.nan if step == 3 else usual(self, step)
    )
    run = train(tiny_config(tmp_path, on_nan="skip", steps=5), TensorBoardReporter())
    assert set(scalars(run.folder / "tensorboard", "loss")) == {1, 2, 4, 5}


@pytest.mark.parametrize("fitting", [0, 1, 5])
def test_a_full_disk_ends_the_events_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting: int
) -> None:
    """From the first event on, which opening the file writes, or later."""
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    usual, left = EventFileWriter.add_event, iter(range(fitting))

    def full(self: Any, event: Any) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(self, event)

    monkeypatch.setattr(EventFileWriter, "add_event", full)
    words = r"^TensorBoard's events cannot be written: No space left on device\.$"
    with pytest.warns(UserWarning, match=words) as found:
        run = train(tiny_config(tmp_path), TensorBoardReporter())
    assert len(found) == 1
    assert run.step == 10


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(UserError, match=r"needs the package tensorboard .*: pip install 'bevia-fast\[tenso"):
        TensorBoardReporter()
