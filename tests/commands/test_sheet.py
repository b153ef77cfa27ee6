"""Tables that fit the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from bevia_fast.agreement.comparison import Comparison
from bevia_fast.agreement.sweep import CheckRow
from bevia_fast.commands import console, doctor, progress
from bevia_fast.commands.check import check_table
from bevia_fast.commands.main import main
from bevia_fast.commands.sheet import Sheet, wrapped
from bevia_fast.commands.tables import (
    FittedConsole,
    compared,
    context_table,
    kernel_notes,
    kernel_table,
    machine,
    make_table,
    measured,
    pair_table,
    span,
    step_table,
)
from bevia_fast.errors import counted
from bevia_fast.measuring.results import KernelResult, Pair, StepResult

WIDTHS = (40, 60, 80, 120)

VERSIONS = {"python": "3.11.7", "numpy": "2.4.6"}
STEP = StepResult("numba --recompute", 2, "float32", 65536, 128, 2, 2, 1, 65, 51206.0, 50100.0, 52300.0, 1279.4, 1e9,
                  123.4, 235.0, 0.525, 12345.6, 61.2, over_bare_mb=1234.5, versions=VERSIONS, cpu="EPYC")  # fmt: skip
STEPS = [replace(STEP, backend="torch-compile", ms_median=91_658.7), STEP]
KERNEL = KernelResult("attention_backward", "numpy", 16, "float32", "B=12 T=1024 NH=12 HS=64", {"T": 1024}, 1234.5,
                      1200.1, 1300.4, 3.2e10, 1.2e8, 266.7, 25.9, 0.097, 520.4, 45.6, 520.4, 0.049, 0.049, "compute",
                      12.3, 2345.6, versions=VERSIONS, cpu="EPYC")  # fmt: skip
FIGURES = {"ms_median": 51206.0, "fraction_of_peak": 0.5}
PAIR = Pair("A training step: ctx 64, dim 128, layers 4, heads 4, batch 12, vocab 65", "numba, 2 threads, float32",
            FIGURES, FIGURES)  # fmt: skip


def sheets() -> list[Sheet]:
    profile = make_table(
        "By kernel", ["kernel", "weight"], ["calls", "time", "of bound"],
        [["layernorm_backward", "attn.c_attn", "24", "12.3 ms", "45%"], ["Python between kernels", "", "", "1 ms", ""]],
        ["of bound", "calls"], ["kernel"],
    )  # fmt: skip
    worst = Comparison("case", "out", 1.234e-7, 9.5e-7, (), 0.0, 0.0)
    checks = check_table([CheckRow("attention_backward", "float64", 44, worst)])
    return [
        checks, step_table("A training step: ctx 64, dim 128, layers 4, heads 4, batch 12, vocab 65", STEPS),
        step_table("A training step over ctx", STEPS, "ctx"), context_table(STEPS), pair_table([PAIR]),
        kernel_table("Kernels, float32, caches warm", [KERNEL, replace(KERNEL, backend="numba")]), profile,
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_too_long_and_no_word_or_number_is_split(width: int) -> None:
    for sheet in sheets():
        whole = {word for _, line in sheet.lines(None) for word in line.split()}
        lines = [line for _, line in sheet.lines(width)]
        assert max(map(cell_len, lines)) <= width, sheet.title
        table = lines[: next((n for n, line in enumerate(lines) if line.startswith("Too wide")), len(lines))]
        words = {word for line in table for word in line.split() if set(word) != {"─"}}
        assert words <= whole, sheet.title


def test_columns_give_way_in_the_order_of_their_importance() -> None:
    sheet = step_table("Steps", STEPS)
    order = []
    for width in range(130, 30, -1):
        shown = sheet.lines(width)[1][1]
        gone = [name for name in sheet.droppable if name not in shown and name not in order]
        order += gone
    assert order == list(sheet.droppable)
    for width in WIDTHS:
        text = " ".join(line for _, line in sheet.lines(width))
        for words in ("51.2 s", "91.7 s", "fastest", "numba", "torch-compile"):
            assert words in text
        for name in sheet.right:  # what is not a column is named
            assert name in text
    assert "Too wide" not in "".join(line for _, line in sheet.lines(None))


def test_columns_of_text_break_between_words_when_nothing_is_left_to_drop() -> None:
    table = make_table("", ["what"], ["n"], [["a word and anotherlongone", "1"]])
    assert [line for _, line in table.lines(18)] == [
        "what             n", "──────────────────", "a word and       1", "anotherlongone", "",
    ]  # fmt: skip
    narrow = [line for _, line in table.lines(5)]
    assert narrow[-2].split() == ["anotherlongone"]  # too long for the line, but whole


def test_wide_characters_take_two_columns() -> None:
    table = make_table("", ["a"], ["n"], [["中文", "1"], ["x", "2"]])
    assert [cell_len(line) for _, line in table.lines(None)][2:4] == [7, 7]


def test_sentences_break_between_words() -> None:
    sentence = "The gradients differ by 1,234.5 % at /a/very/long/path/that/is/not/broken, so stop."
    for width in WIDTHS:
        lines = wrapped(sentence, width, "  ")
        assert " ".join(line.strip() for line in lines) == sentence
        assert all(len(line) <= width or " " not in line.strip() for line in lines)
    assert wrapped(sentence, None) == [sentence]


def test_a_terminal_without_a_width_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns in ("0", "1"):
        monkeypatch.setenv("COLUMNS", columns)
        console = FittedConsole()
        console.show(step_table("Steps", STEPS))
        console.say("a few words that go on", "", "and on")
        out = capsys.readouterr().out
        assert "51.2 s" in out
        assert "\n\nand on\n" in out


@pytest.mark.parametrize("columns", ["", "40"])
def test_where_nobody_watches_nothing_is_left_out(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console = FittedConsole()
    console.show(step_table("Steps", STEPS))
    console.say(*kernel_notes([KERNEL]), machine([KERNEL]))
    console.facts([("CPU", "AMD EPYC " * 9), ("", "and so on")])
    out = capsys.readouterr().out
    assert ("Too wide" in out) == bool(columns)
    assert (max(map(len, out.splitlines())) <= 40) == bool(columns)
    assert "\n     and so on\n" in out


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_on_the_machine_fits(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(doctor, "compile_kernels", lambda *_: "")
    assert main(["doctor", "--no-measure"]) == 0
    out = capsys.readouterr().out
    assert "hardware" in out
    for line in out.splitlines():
        assert len(line) <= width or len(line.split()) == 1, line  # a path is not broken


@pytest.mark.parametrize(
    ("ms", "words"),
    [(51_206.0, "51.2 s"), (1_000.0, "1.00 s"), (999.7, "1.00 s"), (999.4, "999 ms"), (12.34, "12.3 ms"),
     (1.0, "1.00 ms"), (0.99997, "1.00 ms"), (0.0123, "12.3 µs"), (1e-5, "10.0 ns"), (0.0, "0 ns"), (3.6e6, "3,600 s"),
     (99.96, "100 ms"), (9.996, "10.0 ms")],
)  # fmt: skip
def test_times_are_in_the_unit_that_suits_them(ms: float, words: str) -> None:
    assert measured(ms) == words


def test_ranges_and_comparisons_read_well() -> None:
    assert span(990.0, 1010.0) == "0.99 - 1.01 s"
    assert compared(2.0, 2.0) == "fastest"
    assert compared(3.58, 2.0) == "1.79x as long"
    assert [counted(n, "layer") for n in (0, 1, 2, 1234)] == ["0 layers", "1 layer", "2 layers", "1,234 layers"]


@pytest.mark.parametrize("build", [step_table, kernel_table])
def test_one_is_singular(build: Callable[..., Sheet]) -> None:
    one = [replace(STEP, threads=1)] if build is step_table else [replace(KERNEL, threads=1)]
    contexts = context_table([replace(STEP, threads=1)])
    text = " ".join(line for sheet in (build("", one), contexts) for _, line in sheet.lines(None))
    assert "1 thread," in text
    assert "1 threads" not in text


def test_no_text_is_dim_or_yellow() -> None:
    """Which cannot be read on a light background. Neither has a bar one of these colors."""
    console = FittedConsole()
    styles = [style for sheet in sheets() for style, _ in sheet.lines(80) if style]
    styles += [name for name in console._theme_stack._entries[-1] if name.startswith(("progress", "bar", "rule"))]
    for name in styles:
        style = console.get_style(name)
        assert not style.dim, name
        assert style.color is None or style.color.name not in ("yellow", "bright_yellow", "white", "bright_white"), name


# ------------------------------------------------------------------------------------------------------ progress bars


def drawn(columns: list[ProgressColumn], width: int, **fields: str) -> str:
    """Return a progress bar as a terminal of this width shows it."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    bar = Progress(*columns, console=console, expand=True)
    what = "3 of 40, attention_backward B=12 T=1024 NH=12 HS=64: numba"
    bar.add_task(what, total=12_000, completed=4_000, **fields)
    console.print(bar.get_renderable())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [30, *WIDTHS])
def test_bars_are_one_line_that_reads(width: int) -> None:
    shown = drawn(progress.columns(width), width)
    assert shown.count("\n") == 1
    assert shown.lstrip("⠋ ").startswith("3 of 40")
    assert ("33%" in shown) == (width < 60)
    assert ("━" in shown) == (width >= 60)
    assert shown.rstrip().endswith(":--") or "0:00:00" in shown


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bar_of_a_run_shows_what_matters_at_any_width(width: int) -> None:
    shown = drawn(console._step_columns(width), width, loss="1.2345", val="1.3456", speed="123,456")
    assert shown.count("\n") == 1
    for words in ("4000/12000", "loss 1.2345", "left"):
        assert words in shown
    assert ("val 1.3456" in shown) == ("━" in shown) == (width >= 60)
    assert ("123,456 tokens/s" in shown) == (width >= 80)
    assert "…" not in shown


@pytest.mark.parametrize("width", WIDTHS)
def test_compiling_is_shown_at_any_width(width: int) -> None:
    terminal = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    bar = console.CompileBar(terminal)
    bar.show("attention_backward", 7, 21)
    bar.stop()
    assert "compiling" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "attention_" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert " 6/21 " in terminal.file.getvalue()  # type: ignore[attr-defined]
