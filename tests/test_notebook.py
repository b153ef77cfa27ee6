"""Training in a notebook: what the cell shows meanwhile, and at the end."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from small_runs import Acting, tiny_config

from bevia_fast import TrainConfig, train
from bevia_fast.errors import StoppedRun
from bevia_fast.notebook import NotebookReporter

pytestmark = pytest.mark.usefixtures("quick_runs")
PICTURE = 'src="data:image/png;base64,iVBOR'


class Cell(ModuleType):
    """Stands for IPython.display, and keeps what is shown."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.shown: list[str] = []
        self.texts: list[str] = []

    def display(self, view: Any, display_id: bool = False) -> Cell:
        assert display_id
        assert not self.shown  # one output, which is updated
        self.update(view)
        return self

    def update(self, view: Any) -> None:
        self.shown.append(view._repr_html_())
        self.texts.append(repr(view))


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    found = Cell()
    package = ModuleType("IPython")
    package.version_info = (9, 0)  # type: ignore[attr-defined]  # matplotlib asks for it
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", found)
    monkeypatch.setattr("bevia_fast.notebook.SECONDS", 0.0)
    return found


def test_a_bar_a_curve_and_a_sample(tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bevia_fast.notebook.SHARE", 0)
    run = train(tiny_config(tmp_path, sample_every=5, steps=20), NotebookReporter())
    bars = [int(found) for html in cell.shown for found in re.findall(r'<progress value="(\d+)" max="20"', html)]
    assert sorted(set(bars)) == list(range(21))
    assert bars == sorted(bars)
    during = next(html for html in cell.shown if 'value="12"' in html)
    record = run.history[12]
    assert f"step 12 of 20 · loss {record['loss']:.4f} · validation {record['val_loss']:.4f}" in during
    assert re.search(rf"{record['tokens_per_s']:,.0f} tokens/s · (\d+:)?\d+:\d\d left", during)
    assert PICTURE in during
    assert "After step 10:\n" in during
    last = cell.shown[-1]
    assert 'value="20"' in last
    assert "left" not in last
    assert f"Saved in {run.folder}. Try: generate(&#x27;{run.folder}&#x27;)" in last
    assert (run.folder / "sample.txt").read_text()[:-1] in last
    assert "kernels  numpy" in last
    assert PICTURE in last
    assert cell.texts[-1].startswith("step 20 of 20 · ")


def test_curves_take_a_twentieth_of_the_time(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    drawn: list[float] = []

    def draw(records: Any, unit: str) -> Any:
        drawn.append(clock[0])
        clock[0] += 1.0

    monkeypatch.setattr("bevia_fast.notebook.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("bevia_fast.plots.draw_losses", draw)
    monkeypatch.setattr("bevia_fast.plots.png", lambda figure: b"picture")
    reporter = NotebookReporter()
    reporter.start(TrainConfig())
    for step in range(1250):
        clock[0] += 0.1
        reporter.step({"step": step, "loss": 1.0, "val_loss": None, "tokens_per_s": 5.0})
    assert len(drawn) in (6, 7)
    assert min(second - first for first, second in itertools.pairwise(drawn)) >= 20.0


def test_updates_are_as_rare_as_they_can_be_read(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bevia_fast.notebook.SECONDS", 1000.0)
    reporter = NotebookReporter()
    reporter.start(TrainConfig())
    for step in range(100):
        reporter.step({"step": step, "loss": 1.0, "val_loss": 1.0 if step == 50 else None, "tokens_per_s": 5.0})
    assert len(cell.shown) == 2
    assert "step 50 of 1,250" in cell.shown[-1]


def test_reading_a_large_text(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("bevia_fast.notebook.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("bevia_fast.notebook.SECONDS", 2.0)
    with NotebookReporter().counting("reading", 4096) as tell:
        for done in range(0, 4096, 512):
            tell(done)
            clock[0] += 1.0
    assert cell.texts == ["reading: 1.0 kB of 4.1 kB", "reading: 2.0 kB of 4.1 kB", "reading: 3.1 kB of 4.1 kB"]
    with NotebookReporter().counting("reading", 0) as tell:
        clock[0] += 5.0
        cell.shown.clear()
        tell(1024)
    assert cell.texts[-1] == "reading: 1.0 kB"


def test_a_picture_that_fails_is_a_note(tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(records: Any, unit: str) -> None:
        raise RuntimeError("no <font>")

    monkeypatch.setattr("bevia_fast.plots.draw_losses", fail)
    run = train(tiny_config(tmp_path), NotebookReporter())
    assert run.step == 10
    assert cell.shown[-1].count("Note: the picture of the losses cannot be drawn: no &lt;font&gt;.") == 1
    assert "<img" not in cell.shown[-1]


def test_an_interrupted_run_can_be_resumed(tmp_path: Path, cell: Cell) -> None:
    import os
    import signal

    run = train(tiny_config(tmp_path), [Acting(4, lambda: os.kill(os.getpid(), signal.SIGINT)), NotebookReporter()])
    last = cell.shown[-1]
    assert "Note: Finishing this step and saving; interrupt again to stop at once." in last
    assert f"Interrupted; saved in {run.folder}. Resume with: train(resume(&#x27;{run.folder}&#x27;))" in last


def test_a_run_that_stops_says_so(tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bevia_fast.training.loop.not_finite", lambda loss, norm: "the loss is nan")
    with pytest.raises(StoppedRun):
        train(tiny_config(tmp_path), NotebookReporter())
    assert "; stopped" in cell.shown[-1]
    assert "Saved" not in cell.shown[-1]


def test_text_is_no_markup(tmp_path: Path, cell: Cell) -> None:
    (tmp_path / "text.txt").write_text("<script>&\n" * 60)
    train(tiny_config(tmp_path, "<b>run", sample_every=2), NotebookReporter())
    for html in cell.shown:
        assert "<script" not in html
        assert "<b>" not in html


CODE = """
from bevia_fast import ModelConfig, TrainConfig, train
config = TrainConfig(data=["text.txt"], model=ModelConfig(ctx=8, dim=8, layers=1, heads=1), steps=20, batch=2,
                     eval_batches=1, backend="numpy")
run = train(config)
"""


def test_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real kernel, `train` chooses this by itself; a run, its parts and its picture are shown."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    (tmp_path / "text.txt").write_text("the cat sat on the mat.\n" * 40)
    cells = [CODE, "run", "run.plot()", "run.model.parameters", "silent = train(config, progress=False)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    training, run, plot, parameters, silent = (cell.outputs for cell in notebook.cells)
    [shown] = training
    assert '<progress value="20" max="20"' in shown["data"]["text/html"]
    assert PICTURE in shown["data"]["text/html"]
    assert "step 20 of 20" in shown["data"]["text/plain"]
    assert "<caption>Run</caption>" in run[0]["data"]["text/html"]
    assert plot[0]["data"]["image/png"].startswith("iVBOR")
    assert "<caption>Parameters</caption>" in parameters[0]["data"]["text/html"]
    assert silent == []
