"""`bench loss`: when a target counts as reached, what is timed, and that a peer trains the same model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bevia_fast.commands.arguments import parse
from bevia_fast.commands.main import main
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.sources import text_source
from bevia_fast.data.tokenfile import coded_text
from bevia_fast.errors import UserError
from bevia_fast.measuring import loss_target
from bevia_fast.measuring.loss_options import BenchLossConfig
from bevia_fast.measuring.loss_target import OwnRunner, bench_loss, run_until
from bevia_fast.reporter import Progress, Reporter


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat; the dog sat on the log. " * 80)
    return str(path)


def asked(text: str, **options: Any) -> BenchLossConfig:
    usual: dict[str, Any] = {"target": 2.5, "recipe": ("fast",), "preset": "tiny", "data": (text,), "seeds": 2,
                             "steps": 30, "every": 5}  # fmt: skip
    return BenchLossConfig(**(usual | options))


def test_the_first_evaluation_at_or_below_the_target_ends_a_run(text: str) -> None:
    config = asked(text, seeds=1, target=1e-9)
    whole = replace(config.config("fast", 1))
    corpus = Corpus(coded_text(text_source(whole), Reporter()))
    whole = replace(whole, model=replace(whole.model, vocab_size=len(corpus.tokenizer)))

    def losses(target: float) -> Any:
        return run_until(replace(config, target=target), whole, corpus, OwnRunner(whole, corpus), Progress())

    end = losses(1e-9)
    assert (end.step, end.tokens, end.seconds) == (None, None, None)
    assert 0 < end.best < 3.5
    early = losses(3.2)  # from about 3.1 down
    assert early.step in (5, 10, 15)
    assert early.tokens == early.step * 8 * 64
    assert early.seconds > 0
    again = losses(early.best)  # a target that is met exactly is reached
    assert (again.step, again.best) == (early.step, early.best)


def test_only_steps_are_timed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves only while a step runs, and another that moves only while evaluating."""
    now = [0.0]
    advance, judge = OwnRunner.advance, loss_target.evaluate

    def stepping(self: OwnRunner, first: int, count: int) -> float:
        began = now[0]
        advance(self, first, count)
        now[0] += 2.0 * count
        return now[0] - began

    def evaluating(*arguments: Any) -> Any:
        now[0] += 1000.0
        return judge(*arguments)

    monkeypatch.setattr(OwnRunner, "advance", stepping)
    monkeypatch.setattr(loss_target, "evaluate", evaluating)
    [result] = bench_loss(asked(text, target=3.2), Progress())
    assert [run.seconds for run in result.runs] == [2.0 * run.step for run in result.runs if run.step]
    assert result.seconds == sum(run.seconds or 0.0 for run in result.runs) / 2
    assert result.tokens_spread == abs((result.runs[0].tokens or 0) - (result.runs[1].tokens or 0))


def test_a_target_that_is_not_reached_is_said(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "loss.json"
    line = f"bench loss --target 0.5 --recipe textbook --preset tiny --data {text} --seeds 2 --steps 10 --every 10"
    assert main([*line.split(), "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "0 of 2" in shown
    assert shown.count("not reached") == 2
    [result] = json.loads(out.read_text())
    assert result["seconds"] is result["tokens"] is None
    assert [run["seed"] for run in result["runs"]] == [1, 2]
    assert all(2.0 < run["best"] < 4.0 for run in result["runs"])


def test_a_run_that_diverges_has_not_reached_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = asked(text, seeds=1)
    wild = replace(config.config("textbook", 1), lr=1e30, min_lr=0.0, warmup=0, grad_clip=0.0)
    monkeypatch.setattr(BenchLossConfig, "config", lambda self, recipe, seed: wild)
    [result] = bench_loss(config, Progress())
    assert result.runs[0].step is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "--target is 0; it must be a finite number greater than 0"),
        ("--target -1", "--target is -1; it must be a finite number greater than 0"),
        ("--target nan", "--target is nan; it must be"),
        ("--target 2 --recipe", "--recipe names no recipe; omit it for all of them."),
        ("--target 2 --recipe slow", "slow"),
        ("--target 2 --seeds 0", "--seeds is 0; it must be from 1 to 1,000."),
        ("--target 2 --every 0", "--every is 0; it must be from 1"),
    ],
)
def test_what_is_refused(options: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(["bench", "loss", *options.split()])
    assert message in str(caught.value)


def test_pytorch_trains_the_same_model(text: str) -> None:
    """The same losses to within rounding, since weights, batches and learning rates are the same."""
    pytest.importorskip("torch")
    config = asked(text, recipe=("textbook", "nanogpt", "fast"), target=1e-9, peer=("torch",), seeds=1,
                   torch_python=sys.executable)  # fmt: skip
    found = list(bench_loss(config, Progress()))
    assert [(each.recipe, each.program) for each in found] == [
        ("textbook", "bevia-fast, numba"), ("textbook", "torch-eager"), ("nanogpt", "bevia-fast, numba"),
        ("nanogpt", "torch-eager"), ("fast", "bevia-fast, numba"),
    ]  # fmt: skip
    for ours, theirs in ((found[0], found[1]), (found[2], found[3])):
        assert theirs.runs[0].best == pytest.approx(ours.runs[0].best, abs=1e-4)
