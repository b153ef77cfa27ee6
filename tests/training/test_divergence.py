"""NaN and infinity in a step: found, named, kept out of the weights, and reproducible."""

from __future__ import annotations

import io
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_runs import Acting, result, tiny_config

from bevia_fast import train
from bevia_fast.commands.console import ConsoleReporter
from bevia_fast.errors import StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.runs.checkpoint import newest_good, stored_config
from bevia_fast.runs.folder import read_metrics
from bevia_fast.runs.spikes import Spikes
from bevia_fast.training import loop
from bevia_fast.training.diagnosis import first_not_finite
from bevia_fast.training.step import Trainer

pytestmark = pytest.mark.usefixtures("quick_runs")


def poison(
    patch: pytest.MonkeyPatch, backend: Backend, operation: str, call: int, value: float = math.nan,
    argument: int = 0,
) -> list[int]:  # fmt: skip
    """Let the n-th call of an operation leave a NaN in one of its arrays.

    Returns a list that holds the number of calls so far; set it to 0 before another pass.
    """
    kernel, count = getattr(backend, operation), [0]

    def spoiling(*args: Any, **options: Any) -> Any:
        found = kernel(*args, **options)
        count[0] += 1
        if count[0] == call:
            args[argument].reshape(-1)[-1] = value
        return found

    patch.setattr(backend, operation, spoiling)
    return count


@pytest.mark.parametrize(
    ("operation", "call", "argument", "words"),
    [
        ("embedding_forward", 1, 0, "embedded[1, 7, 7], which is nan after embedding_forward"),
        ("layernorm_forward", 3, 0, "normed[15, 7], which is nan after layernorm_forward with h.1.ln_1.weight"),
        ("linear_forward", 1, 0, "qkv of layer 0 (h.0)[15, 23], which is nan after linear_forward with h.0.attn"),
        ("attention_forward", 2, 0, "attended of layer 1 (h.1)"),
        ("linear_forward", 8, 0, "residual_out of layer 1 (h.1)"),
        ("linear_forward", 9, 0, "logits"),
        ("cross_entropy", 1, 0, "losses[15], which is nan after cross_entropy"),
        ("layernorm_backward", 1, 1, "the gradient of ln_f.weight[7], which is nan after layernorm_backward"),
        ("linear_backward", 2, 1, "the gradient of h.1.mlp.c_proj.weight"),
        ("attention_backward", 1, 0, "dqkv[1, 7, 23], which is nan after attention_backward"),
        ("embedding_backward", 1, 1, "the gradient of wpe.weight[7, 7]"),
    ],
)
def test_the_first_tensor_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, call: int, argument: int, words: str
) -> None:
    backend = get_backend("numpy")
    count = poison(monkeypatch, backend, operation, call, argument=argument)
    config = tiny_config(tmp_path)
    trainer = Trainer(config, replace(config.model, vocab_size=5), backend, np.arange(99, dtype=np.int32) % 5)
    with np.errstate(invalid="ignore"):
        loss = trainer.backward(1)
        assert not math.isfinite(loss) or not np.isfinite(trainer.gradients.flat).all()
        count[0] = 0
        found = first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(1))
    assert found is not None
    assert found.startswith(words)
    assert trainer.model.backend is backend
    assert not trainer.gradients.flat.any()


def test_with_recompute_the_current_layer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers share the arrays of attention, so an array alone does not tell the layer."""
    backend = get_backend("numpy")
    config = tiny_config(tmp_path, recompute=True)
    two, four = (replace(config.model, vocab_size=5, layers=layers) for layers in (2, 4))
    for model, operation, call, words in (
        (two, "attention_forward", 1, "attended[1, 7, 7], which is nan after attention_forward at h.0"),
        (four, "attention_forward", 3, "attended[1, 7, 7], which is nan after attention_forward at h.2"),
        (four, "attention_forward", 5, "attended[1, 7, 7], which is nan after attention_forward at h.2"),  # recomputed
        (four, "linear_forward", 5, "qkv[15, 23], which is nan after linear_forward with h.1.attn.c_attn.weight"),
        (four, "attention_backward", 3, "dqkv[1, 7, 23], which is nan after attention_backward at h.1"),
    ):
        with monkeypatch.context() as patch:
            poison(patch, backend, operation, call)
            trainer = Trainer(config, model, backend, np.arange(99, dtype=np.int32) % 5)
            with np.errstate(invalid="ignore"):
                found = first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(1))
        assert found == words


def test_weights_are_checked_first_and_finite_values_are_not_reported(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    trainer = Trainer(
        config, replace(config.model, vocab_size=5), get_backend("numpy"), np.arange(99, dtype=np.int32) % 5
    )
    assert first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(1)) is None
    trainer.weights["h.1.ln_2.bias"][3] = np.inf
    found = first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(1))
    assert found == "the weight h.1.ln_2.bias[3], which is inf before the step"


def broken_step(patch: pytest.MonkeyPatch, wrong: Callable[[int], bool]) -> None:
    """Make the gradient of the logits infinite in some steps, whenever they are computed."""
    backend, microbatches = get_backend("numpy"), Trainer.microbatches
    now, kernel = [0], backend.cross_entropy

    def noting(self: Trainer, step: int) -> Any:
        now[0] = step
        yield from microbatches(self, step)

    def spoiling(losses: Any, dlogits: Any, *args: Any, **options: Any) -> None:
        kernel(losses, dlogits, *args, **options)
        if dlogits is not None and wrong(now[0]):
            dlogits[0, 0] = np.inf

    patch.setattr(Trainer, "microbatches", noting)
    patch.setattr(backend, "cross_entropy", spoiling)


def test_a_run_stops_before_the_update_and_says_how_to_see_the_error_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny_config(tmp_path, "whole"))
    with monkeypatch.context() as patch:
        broken_step(patch, lambda step: step == 8)
        for attempt in ({}, {"crosscheck_every": 1}):
            config = tiny_config(tmp_path) if not attempt else stored_config(tmp_path / "run")
            with pytest.raises(StoppedRun) as caught:
                train(replace(config, **attempt))  # type: ignore[arg-type]
            message = str(caught.value)
            assert message.startswith("Stopped at step 8: the gradient's norm is ")
            assert "the first non-finite value is logits[0, 0], which is inf after cross_entropy" in message
            assert message.endswith(f": train(resume({str(tmp_path / 'run')!r}, crosscheck_every=1))")
            assert ("with the numba backend, all values are finite" in message) == bool(attempt)
            assert newest_good(tmp_path / "run")[0].progress.step == 7
    train(replace(stored_config(tmp_path / "run"), crosscheck_every=0))
    assert result(tmp_path / "run") == result(whole.folder)


def test_skipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_step(monkeypatch, lambda step: step in (3, 8))
    reporter = Acting()
    whole = train(tiny_config(tmp_path, "whole", on_nan="skip"), reporter)
    assert [note.split(":")[0] for note in reporter.notes] == [
        "step 3 was skipped (1 so far)", "step 8 was skipped (2 so far)",
    ]  # fmt: skip
    lines = read_metrics(whole.folder)
    assert [line["step"] for line in lines] == list(range(11))
    assert [(line["loss"], line["skipped"]) for line in lines if "skipped" in line] == [(None, 1), (None, 2)]
    assert lines[8]["val_loss"] is not None
    with pytest.raises(StoppedRun):
        train(tiny_config(tmp_path, on_nan="stop"))
    train(replace(stored_config(tmp_path / "run"), on_nan="skip"))
    assert result(tmp_path / "run") == result(whole.folder)


@pytest.mark.parametrize("live", [True, False])
def test_skipped_steps_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    broken_step(monkeypatch, lambda step: step in (3, 8))  # step 8 is evaluated
    output = io.StringIO()
    train(tiny_config(tmp_path, on_nan="skip"), ConsoleReporter(Console(file=output, force_terminal=live, width=120)))
    lines = [line for line in output.getvalue().splitlines() if " loss      -  val " in line]
    assert [line.split()[1] for line in lines if "- tokens/s" in line] == ["8"] if live else ["3", "8"]


def test_a_run_stops_after_too_many_skipped_steps_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_step(monkeypatch, lambda step: step >= 4)
    with pytest.raises(StoppedRun, match="Stopped at step 14"):
        train(tiny_config(tmp_path, on_nan="skip", steps=100))


@pytest.mark.parametrize("evaluation", [False, True])
def test_an_interruption_does_not_reset_the_count_of_skipped_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: bool
) -> None:
    """Whether it comes after a step or during the evaluation of a skipped step."""
    broken_step(monkeypatch, lambda step: step == 2 or step >= 4)
    real, count = loop.evaluate, [0]

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def evaluate(*arguments: Any) -> float | None:
        count[0] += 1
        if count[0] == 3:  # before the first step, after step 4, after step 8
            interrupt()
        return real(*arguments)

    if evaluation:
        monkeypatch.setattr(loop, "evaluate", evaluate)
    config = tiny_config(tmp_path, on_nan="skip", steps=100)
    assert train(config, Acting(-1 if evaluation else 7, interrupt)).interrupted
    assert newest_good(config.out)[0].progress.step == (8 if evaluation else 7)
    with pytest.raises(StoppedRun, match="Stopped at step 14"):
        train(stored_config(config.out))


def test_a_step_that_is_finite_when_recomputed_is_reported_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda self, step: math.nan if step == 5 else backward(self, step))
    with pytest.raises(StoppedRun, match="step 5: the loss is nan; when recomputed, all values are finite"):
        train(tiny_config(tmp_path))


def test_a_spike_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda self, step: backward(self, step) + 5.0 * (step == 70))
    reporter = Acting()
    config = tiny_config(tmp_path, steps=80, save_every=1)
    train(config, reporter)
    assert [note.split(" to ")[0] for note in reporter.notes] == ["step 70: the loss jumped"]
    [line] = [line for line in read_metrics(Path(config.out)) if "spike" in line]
    assert line["step"] == 70
    assert 4.0 < line["spike"] < 6.0  # above the usual loss
    assert line["loss"] - line["spike"] > 1.0


def test_a_spike_is_logged_even_if_it_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader closed the pipe; the checkpoint that is saved then has its line in the metrics."""
    backward = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda self, step: backward(self, step) + 5.0 * (step == 70))

    class Gone(Acting):
        def note(self, text: str) -> None:
            raise BrokenPipeError

    config = tiny_config(tmp_path, steps=80, eval_every=7)
    with pytest.raises(BrokenPipeError):
        train(config, Gone())
    assert newest_good(config.out)[0].progress.step == 70
    last = read_metrics(Path(config.out))[-1]
    assert (last["step"], "spike" in last, last["val_loss"] is None) == (70, True, False)
    train(stored_config(config.out))
    assert [line["step"] for line in read_metrics(Path(config.out))] == list(range(81))


def test_noisy_losses_are_not_spikes() -> None:
    noise = np.random.default_rng(0)
    spikes = Spikes()
    for step in range(5000):
        assert spikes.add(1.0 + 3.0 * math.exp(-step / 300) + 0.1 * noise.normal()) is None
    assert spikes.add(3.0) == pytest.approx(1.0, abs=0.1)
    assert spikes.add(3.0) is not None  # the first spike does not hide the second
