"""The training loop and its single step."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bevia_fast import ModelConfig, Run, TrainConfig, generate, train
from bevia_fast.errors import CheckpointError, ConfigError, DataError, StoppedRun
from bevia_fast.kernels import get_backend
from bevia_fast.kernels.contract import Backend
from bevia_fast.machine import available_bytes, readable
from bevia_fast.model.activations import Activations
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.parameters import Parameters
from bevia_fast.planning.memory import training_memory
from bevia_fast.reporter import Record, Reporter
from bevia_fast.runs.modelfile import load_model
from bevia_fast.training.evaluation import evaluate
from bevia_fast.training.signals import finish_on_signal
from bevia_fast.training.step import Trainer

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 40
SMALL = ModelConfig(ctx=16, dim=24, layers=2, heads=2)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return TrainConfig(
        data=[str(path)], out=str(tmp_path / "run"), model=SMALL, steps=6, batch=3, eval_every=3, sample_every=0,
        warmup=2, backend="numpy",
    )  # fmt: skip


def trainer_of(config: TrainConfig, backend: Backend | None = None, **model: Any) -> Trainer:
    """Return a trainer on tokens that are easy to predict."""
    shape = replace(config.model, vocab_size=11, **model)
    tokens = (np.arange(2000) % 11).astype(np.int32)
    return Trainer(config, shape, backend or get_backend("numpy"), tokens)


# ------------------------------------------------------------------------------------------------------------ one step


def test_a_step_is_a_pure_function_of_seed_and_step(config: TrainConfig, backend: Backend) -> None:
    """Bit for bit: steps 3 and 4 depend on weights and moments, but not on what was computed before."""
    ones = [trainer_of(config, backend, dropout=0.2) for _ in range(2)]
    for step in range(1, 3):
        ones[0].update(step, ones[0].backward(step))
    for name in ("weights", "first", "second"):
        getattr(ones[1], name).flat[...] = getattr(ones[0], name).flat
    for step in range(3, 5):
        losses = [one.backward(step) for one in ones]
        assert losses[0] == losses[1]
        assert np.array_equal(ones[0].gradients.flat, ones[1].gradients.flat)
        assert ones[0].update(step, losses[0]) == ones[1].update(step, losses[1])
    assert np.array_equal(ones[0].weights.flat, ones[1].weights.flat)


def test_accumulated_batches_equal_one_large_batch(config: TrainConfig) -> None:
    small = trainer_of(replace(config, batch=2, accumulate=3), dtype="float64")
    large = trainer_of(replace(config, batch=6), dtype="float64")
    for step in range(1, 4):
        a, b = small.backward(step), large.backward(step)
        assert a == pytest.approx(b, rel=1e-13)
        scale = float(np.abs(large.gradients.flat).max())
        assert np.abs(small.gradients.flat - large.gradients.flat).max() < 1e-13 * scale
        small.update(step, a)
        large.update(step, b)
    sizes = [sum(array.nbytes for array in _arrays(each.model._activations)) for each in (small, large)]
    assert sizes[0] < sizes[1]
    assert small.model._activations is not None
    assert small.model._activations.shape[0] == 2  # room for one of the small batches


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e6])
def test_the_gradient_is_clipped_to_the_given_norm(config: TrainConfig, clip: float) -> None:
    given: dict[str, Any] = {}
    numpy = get_backend("numpy")
    names = [name for name in dir(numpy) if not name.startswith("_")]
    spying = SimpleNamespace(**{name: getattr(numpy, name) for name in names})
    spying.adamw = lambda *_args, **options: given.update(options)
    trainer = trainer_of(replace(config, grad_clip=clip), spying)  # type: ignore[arg-type]
    loss = trainer.backward(1)
    norm, _ = trainer.update(1, loss)
    assert norm == pytest.approx(float(np.linalg.norm(trainer.gradients.flat.astype(np.float64))), rel=1e-6)
    assert given["gradient_scale"] == (pytest.approx(0.01 / norm) if clip == 0.01 else 1.0)
    assert given["decayed"] == trainer.weights.decayed


@pytest.mark.parametrize("share", [0.5, 1 - 1e-7, 1 - 1e-15, 1.0, 1 + 1e-15, 1 + 1e-7, 2.0])
def test_clipping_near_the_norm(config: TrainConfig, share: float) -> None:
    """A gradient that is longer is scaled to the norm exactly, without nanoGPT's 1e-6; any other keeps its bits."""
    scales = list[float]()
    numpy = get_backend("numpy")
    spying = SimpleNamespace(**{name: getattr(numpy, name) for name in numpy.__all__})  # type: ignore[attr-defined]
    spying.adamw = lambda *_args, gradient_scale, **_options: scales.append(gradient_scale)
    trainer = trainer_of(config, spying)  # type: ignore[arg-type]
    loss = trainer.backward(1)
    norm = trainer.norm()
    trainer.config = replace(config, grad_clip=norm * share)
    assert trainer.update(1, loss, norm)[0] == norm
    assert scales == [norm * share / norm if norm * share < norm else 1.0]


def test_micro_batches_have_masks_and_text_of_their_own(config: TrainConfig) -> None:
    """Micro-batch i of step s is number (s - 1) * accumulate + i of the run: no mask and no batch comes twice."""
    trainer = trainer_of(replace(config, accumulate=3), dropout=0.2)
    found = [each for step in (1, 2, 3) for each in trainer.microbatches(step)]
    assert [(stream.seed, stream.step) for _, _, stream in found] == [(config.seed, index) for index in range(9)]
    for index, (tokens, targets, _) in enumerate(found):
        wanted = trainer.batches[index]
        assert np.array_equal(tokens, wanted[0])
        assert np.array_equal(targets, wanted[1])
    assert len({stream.key("embedding dropout") for _, _, stream in found}) == 9


def test_accumulated_gradients_use_each_mask(config: TrainConfig) -> None:
    trainer = trainer_of(replace(config, accumulate=2), dropout=0.5, dtype="float64")
    loss = trainer.backward(2)
    parts, losses = Parameters(trainer.weights.config), []
    for index in (2, 3):
        dropout = DropoutStream(config.seed, index)
        losses.append(
            trainer.model.loss_and_gradients(*trainer.batches[index], parts, scale=0.5, dropout=dropout)
        )
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-14)
    assert np.abs(parts.flat - trainer.gradients.flat).max() < 1e-14 * np.abs(parts.flat).max()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_stop_before_the_update(config: TrainConfig, bad: float) -> None:
    trainer = trainer_of(config)
    loss, before = trainer.backward(1), trainer.weights.flat.copy()
    with pytest.raises(StoppedRun, match="step 1: the loss is"):
        trainer.update(1, bad)
    trainer.gradients["wte.weight"][0, 0] = bad
    with pytest.raises(StoppedRun, match="the gradient's norm is"):
        trainer.update(1, loss)
    assert np.array_equal(trainer.weights.flat, before)


def test_evaluation_is_the_mean_over_all_tokens(config: TrainConfig) -> None:
    model = trainer_of(config, dtype="float64").model
    tokens = (np.arange(101) ** 2 % 11).astype(np.int32)
    whole = evaluate(model, tokens, batch=2)
    assert whole == pytest.approx(evaluate(model, tokens, batch=5), rel=1e-12)
    ctx = model.config.ctx
    parts = [(tokens[i : i + ctx], tokens[i + 1 : i + 1 + ctx]) for i in range(0, 100, ctx)]
    parts = [(a[: len(b)], b) for a, b in parts]
    total = sum(model.loss(a[None].copy(), b[None].copy()) * len(b) for a, b in parts)
    assert whole == pytest.approx(total / 100, rel=1e-12)
    assert evaluate(model, tokens, batch=2, stop=lambda: True) is None


# ------------------------------------------------------------------------------------------------------------- one run


def lines(folder: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def without_time(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "tokens_per_s"} for record in records]


def test_a_run_writes_the_promised_files(config: TrainConfig) -> None:
    run = train(config)
    assert run.folder == Path(config.out)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "best.safetensors", "checkpoints", "config.json", "film", "generation_config.json", "loss.png", "metrics.jsonl",
        "model.safetensors", "options.json", "sample.txt", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    records = lines(run.folder)
    assert records == run.history
    assert [record["step"] for record in records] == list(range(7))
    assert {"step", "loss", "val_loss", "lr", "grad_norm", "tokens_per_s"} <= records[1].keys()
    assert [record["step"] for record in records if record["val_loss"] is not None] == [0, 3, 6]
    assert (run.folder / "sample.txt").read_text()
    assert (run.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((run.folder / "options.json").read_text())
    assert written["steps"] == 6
    assert written["model"]["vocab_size"] == len(set(TEXT))
    again = Run.load(run.folder, "numpy")
    assert np.array_equal(again.model.parameters.flat, run.model.parameters.flat)
    assert generate(run, "the ", length=20) == generate(again, "the ", length=20)
    assert generate(str(run.folder), "the ", length=20, backend="numpy").startswith("the ")


def test_the_same_run_twice_gives_the_same_bits(config: TrainConfig, backend: Backend, tmp_path: Path) -> None:
    config = replace(config, backend=backend.name, model=replace(SMALL, dropout=0.1))  # type: ignore[arg-type]
    runs = [train(replace(config, out=str(tmp_path / name))) for name in ("one", "two")]
    assert without_time(runs[0].history) == without_time(runs[1].history)
    files = [(run.folder / "model.safetensors").read_bytes() for run in runs]
    assert files[0] == files[1]
    other = train(replace(config, out=str(tmp_path / "three"), seed=2))
    assert without_time(other.history) != without_time(runs[0].history)


def test_it_learns(config: TrainConfig, backend: Backend) -> None:
    run = train(replace(config, steps=150, eval_every=150, lr=3e-3, min_lr=3e-4, warmup=10, backend=backend.name))  # type: ignore[arg-type]
    history = run.history
    assert history[0]["val_loss"] == pytest.approx(math.log(len(set(TEXT))), abs=0.1)
    assert history[-1]["val_loss"] < 1.1
    assert "the " in generate(run, "the ", length=100, temperature=0.0)[4:]


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (5, [5]), (6, [])])
def test_samples_are_shown_every_so_many_steps(config: TrainConfig, every: int, steps: list[int]) -> None:
    """And before the first step, unless there are none on the way, and after the last."""
    found: list[int] = []

    class Listening(Reporter):
        def sample(self, step: int, text: str) -> None:
            found.append(step)

    train(replace(config, backend="numpy", sample_every=every), Listening())
    assert found == [*([0] if every else []), *steps, 6]


def test_evaluation_and_samples_do_not_change_the_run(config: TrainConfig, tmp_path: Path) -> None:
    plain = train(replace(config, eval_every=6))
    busy = train(replace(config, out=str(tmp_path / "busy"), eval_every=1, eval_batches=1, sample_every=1))
    assert np.array_equal(plain.model.parameters.flat, busy.model.parameters.flat)


def test_default_folders_are_numbered(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "2").mkdir(parents=True)
    short = replace(config, out="", steps=1)
    assert [train(short).folder for _ in range(2)] == [Path("runs/1"), Path("runs/3")]


# ------------------------------------------------------------------------------------------------------------ failures


def test_bad_input_writes_nothing(config: TrainConfig, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    huge = replace(SMALL, dim=1 << 16, layers=1 << 12)
    for bad, error in (
        (replace(config, data=["nowhere.txt"]), DataError),
        (replace(config, model=replace(SMALL, ctx=500)), DataError),
        (replace(config, model=huge), ConfigError),
        (replace(config, out=str(tmp_path / "text.txt")), CheckpointError),
    ):
        with pytest.raises(error):
            train(bad)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_a_run_is_refused_and_left_alone(config: TrainConfig) -> None:
    train(replace(config, steps=1))
    before = {path: path.read_bytes() for path in Path(config.out).rglob("*.*")}
    with pytest.raises(CheckpointError, match="already contains a run"):
        train(config)
    assert {path: path.read_bytes() for path in Path(config.out).rglob("*.*")} == before


class Acting(Reporter):
    """Calls a function after a step, and records how the run ended."""

    def __init__(self, step: int, act: Any) -> None:
        self.when, self.act, self.ended = step, act, list[tuple[Path | None, int]]()

    def step(self, record: Record) -> None:
        if record["step"] == self.when:
            self.act()

    def end(self, folder: Path | None, interrupted: int) -> None:
        self.ended.append((folder, interrupted))


def test_a_run_that_diverges_keeps_the_last_good_weights(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda self, step: math.nan if step == 5 else backward(self, step))
    reporter = Acting(-1, None)
    with pytest.raises(StoppedRun, match="step 5: the loss is nan"):
        train(config, reporter)
    assert reporter.ended == [(None, 0)]
    parameters, _ = load_model(config.out)  # of step 4
    assert np.isfinite(parameters.flat).all()
    assert [record["step"] for record in lines(config.out)] == [0, 1, 2, 3, 4]
    assert (Path(config.out) / "loss.png").exists()


def test_a_plot_that_cannot_be_drawn_hides_no_error(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is gone, and with it the data of the plot; the run ends as it would without a plot."""
    with pytest.raises(StoppedRun, match="the last save failed"):
        train(config, Acting(4, lambda: shutil.rmtree(config.out)))
    backward = Trainer.backward
    monkeypatch.setattr(Trainer, "backward", lambda self, step: math.nan if step == 5 else backward(self, step))
    with pytest.raises(StoppedRun, match="step 5: the loss is nan"):
        train(config, Acting(4, lambda: shutil.rmtree(config.out)))


def test_ctrl_c_finishes_the_step_and_saves(config: TrainConfig) -> None:
    reporter = Acting(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    run = train(replace(config, steps=1000), reporter)
    assert run.interrupted == signal.SIGINT
    assert reporter.ended == [(run.folder, signal.SIGINT)]
    assert [record["step"] for record in lines(config.out)] == [0, 1, 2]
    assert np.array_equal(load_model(config.out)[0].flat, run.model.parameters.flat)
    assert (run.folder / "sample.txt").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    calls: list[int] = []

    def twice() -> None:
        with finish_on_signal(lambda: calls.append(1)) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert calls == [1]


def test_the_planned_memory_is_what_is_allocated() -> None:
    for options in ({}, {"dtype": "float64"}, {"layers": 1, "heads": 1, "dim": 40}, {"ctx": 256, "vocab_size": 3000}):
        config = ModelConfig(**({"vocab_size": 65} | options))  # type: ignore[arg-type]
        weights, total = Parameters(config).flat.nbytes, 0
        seen: set[int] = set()
        for array in _arrays(Activations(config, 8, config.ctx)):
            if id(array) not in seen:
                seen.add(id(array))
                total += array.nbytes
        memory = training_memory(config, 8, "numba")
        assert (memory.weights, memory.gradients, memory.moments) == (weights, weights, 2 * weights)
        assert memory.kept + memory.passing == total
        both = training_memory(config, 8, "numba", crosscheck=True)
        assert both.total > memory.total + total + 3 * 8 * config.heads * config.ctx**2 * 4
    found = available_bytes()
    assert found is None or found > 1 << 20
    sizes = [readable(n) for n in (5, 999, 1000, 2048, 999_960, 1.5e9, 1e24)]
    assert sizes == ["5 bytes", "999 bytes", "1.0 kB", "2.0 kB", "1.0 MB", "1.5 GB", "1,000,000,000.0 PB"]


def _arrays(thing: Any) -> Iterator[np.ndarray[Any, Any]]:
    with contextlib.suppress(TypeError):
        for value in vars(thing).values():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, np.ndarray):
                    yield each
                else:
                    yield from _arrays(each)
