"""The output of a training run."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bevia_fast import ModelConfig, TrainConfig, train
from bevia_fast.commands.console import ConsoleReporter, printable


@pytest.mark.parametrize("live", [True, False])
def test_a_run_is_shown(tmp_path: Path, live: bool) -> None:
    text = tmp_path / "t.txt"
    text.write_text("[bold]to be or not to be[/bold]\x1b\n" * 20)  # no markup for the console, no escape sequences
    output = io.StringIO()
    console = Console(file=output, force_terminal=live, color_system=None, width=120, highlight=False, markup=False)
    config = TrainConfig(
        data=[str(text)], out=str(tmp_path / "my run"), model=ModelConfig(ctx=8, dim=8, layers=1, heads=1), steps=40,
        batch=2, eval_every=20, sample_every=20, backend="numpy",
    )  # fmt: skip
    train(config, ConsoleReporter(console))
    shown = output.getvalue()
    assert ("\x1b[" in shown) == live  # the bar moves the cursor
    assert "\x1b\n" not in shown
    assert "660 characters" in shown
    assert shown.count("sample before the first step") + shown.count("sample after step ") == 3
    lines = [line for line in shown.splitlines() if line.startswith("step  ") and " val" in line]
    if live:
        assert "40/40" in shown
        assert "left" in shown
    else:
        assert len(lines) == 11
        assert all("tokens/s" in line for line in lines[1:])
    folder = tmp_path / "my run"
    assert f"Saved in {folder}. Try: generate({str(folder)!r})\n" in shown


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[2Jb\n\tc\x00é") == "a\\x1b[2Jb\n\tc\\x00é"


@pytest.mark.parametrize("live", [True, False])
def test_long_tasks_show_their_progress(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short task shows nothing."""
    now = [100.0]
    monkeypatch.setattr("bevia_fast.commands.console.time", SimpleNamespace(monotonic=lambda: now[0]))
    output = io.StringIO()
    reporter = ConsoleReporter(Console(file=output, force_terminal=live, color_system=None, width=120))
    with reporter.counting("Encoding the text", 4 << 20) as tell:
        tell(1 << 10)
    assert output.getvalue() == ""
    with reporter.counting("Encoding the text", 4 << 20) as tell:
        for done in range(1, 26):
            now[0] += 1.0
            tell(done << 17)
    shown = output.getvalue()
    if live:
        assert "/4.2 MB" in shown
    else:
        assert shown.splitlines() == [
            f"Encoding the text: {size} of 4.2 MB ..." for size in ("131.1 kB", "1.4 MB", "2.8 MB")
        ]
