"""The sizes of a run, as `bench` and `profile` take them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bevia_fast.commands.arguments import parse
from bevia_fast.commands.main import main
from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.data.tokenizer import Tokenizer
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.kernels import get_backend
from bevia_fast.measuring.kernel_jobs import bench_jobs
from bevia_fast.measuring.options import BenchKernelsConfig, BenchScalingConfig, BenchStepConfig
from bevia_fast.measuring.results import extras, pairs
from bevia_fast.measuring.run_sizes import run_config
from bevia_fast.measuring.step_times import peers_have
from bevia_fast.measuring.training_step import StepSize, TrainingStep
from bevia_fast.model.dropout import DropoutStream
from bevia_fast.model.parameters import Parameters
from bevia_fast.runs.modelfile import save_model

MODEL = ModelConfig(ctx=16, dim=24, layers=2, heads=3, dropout=0.2, norm="post", vocab_size=7, dtype="float64")
CONFIG = TrainConfig(model=MODEL, batch=5, accumulate=3, recompute=True)


@pytest.fixture
def run(tmp_path: Path) -> str:
    (tmp_path / "options.json").write_text(json.dumps({"format_version": 1, **asdict(CONFIG), "facts": {}}))
    return str(tmp_path)


def test_a_step_has_the_sizes_of_the_run(run: str) -> None:
    assert BenchStepConfig(run=run).step() == TrainConfig(model=MODEL, batch=5, accumulate=3, recompute=True)
    changed = BenchStepConfig(run=run, dim=48, dropout=0.0, accumulate=1, batch=2, vocab=9, dtype="float32").step()
    assert changed.model == replace(MODEL, dim=48, dropout=0.0, vocab_size=9, dtype="float32")
    assert (changed.batch, changed.accumulate, changed.recompute) == (2, 1, True)
    assert parse(["bench", "scaling", run, "--over", "batch"]).at(7).step().batch == 7
    assert parse(["profile", "step", run]).model() == MODEL
    plain = BenchStepConfig().step()
    assert (plain.model.vocab_size, plain.model.dtype, plain.accumulate, plain.recompute) == (65, "float32", 1, False)


def test_a_model_file_is_enough(tmp_path: Path) -> None:
    model = replace(MODEL, vocab_size=3)
    save_model(tmp_path / "model.safetensors", Parameters.initial(model, 0), Tokenizer("abc"), 1)
    assert run_config(str(tmp_path / "model.safetensors")).model == model


def test_kernels_have_the_sizes_of_the_run_or_of_the_options(run: str) -> None:
    assert {job.dims["N"] for job in bench_jobs(BenchKernelsConfig(only=("gelu",)))} == {768, 2048}
    (job,) = bench_jobs(BenchKernelsConfig(run=run, only=("attention_forward",)))
    assert dict(job.dims) == {"B": 5, "T": 16, "C": 24, "NH": 3, "HS": 8}
    (job,) = bench_jobs(BenchKernelsConfig(ctx=100, dim=256, only=("attention_forward",)))
    assert dict(job.dims) == {"B": 12, "T": 100, "C": 256, "NH": 4, "HS": 64}
    with pytest.raises(ConfigError, match="--dim 10 is not divisible by --heads 4"):
        BenchKernelsConfig(dim=10)
    with pytest.raises(ConfigError, match="--quick"):
        BenchKernelsConfig(dim=16, quick=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "is not the configuration of a run"), ("[]", "is not the configuration"), ("{}", "is not the configuration"),
     ('{"model": {"ctx": "x"}}', "is not the configuration of a run: "), ("[" * 10**5, "is not the configuration"),
     (json.dumps(asdict(replace(CONFIG, model=ModelConfig()))), "how many characters")],
)  # fmt: skip
def test_what_is_no_run_is_refused(text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.json").write_text(text)
    assert main(["bench", "step", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_what_does_not_go_together_is_refused(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CheckpointError, match="There is no run"):
        BenchStepConfig(run=str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="is not a run: it has no"):
        BenchScalingConfig(run=str(tmp_path.parent))
    with pytest.raises(ConfigError, match="--preset cannot be combined with a run"):
        parse(["bench", "step", run, "--preset=baby"])
    assert main(["bench", "step", run, "--peer", "torch-eager"]) == 2
    assert "--peer compares steps of GPT-2's model" in capsys.readouterr().err


def test_a_step_of_several_batches_is_the_mean_of_their_gradients() -> None:
    size = StepSize.of(replace(MODEL, dtype="float64"), 2, 3)
    step = TrainingStep(size, get_backend("numpy"), recompute=True)
    expected = Parameters(size.model)
    for part in range(3):
        step.model.loss_and_gradients(step.tokens, step.targets, expected, scale=1 / 3, dropout=DropoutStream(0, part))
    found: list[Any] = []
    step.update = lambda: found.append(step.gradients.flat.copy())  # type: ignore[method-assign]
    step.run()
    np.testing.assert_allclose(found[0], expected.flat)
    assert size.tokens == 3 * 2 * 16
    assert size.variant == "norm post"
    assert StepSize.of(ModelConfig(tie=False, bias=False, activation="relu"), 1).variant == "relu, untied, no bias"


def test_peers_have_both_forms_of_gelu() -> None:
    for options, have in (({}, True), ({"activation": "gelu_erf"}, True), ({"activation": "relu"}, False),
                          ({"activation": "gelu_erf", "bias": False}, False), ({"dropout": 0.1}, False)):  # fmt: skip
        assert peers_have(StepSize.of(ModelConfig(**options), 1)) == have  # type: ignore[arg-type]
    assert not peers_have(StepSize.of(ModelConfig(), 1, accumulate=2))
    windows = StepSize.of(ModelConfig(window=3), 1), StepSize.of(ModelConfig(window=3, window_layers="odd"), 1)
    assert [size.variant for size in windows] == [
        "window 3 in every second layer", "window 3 in every second layer, from the second on",
    ]  # fmt: skip


def test_results_of_other_steps_are_other_measurements(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "step", run, "--backend", "numpy", "--seconds", "0.01", "--turns", "1", "--threads", "1"]
    assert main([*line, "--json", f"{run}/a.json"]) == 0
    assert "vocab 7, dropout 0.2, accumulate 3, recompute, norm post" in capsys.readouterr().out
    (found,) = json.loads(Path(run, "a.json").read_text())
    assert found["tokens_per_s"] == pytest.approx(3 * 5 * 16 / found["ms_median"] * 1e3)
    plain = {name: value for name, value in found.items()
             if name not in ("dropout", "accumulate", "recompute", "variant")}  # fmt: skip
    assert pairs([found], [plain]) == ([], 2)
    assert pairs([plain], [plain | {"dropout": 0.0, "variant": ""}])[1] == 0  # an earlier version wrote none of them
    assert extras(plain) == ""
