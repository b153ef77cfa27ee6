"""A run whose tokens are bytes does all that one of characters does, without a package, and knows every character."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import TEXT, result, tiny_config

from bevia_fast import generate, resume, train
from bevia_fast.commands.main import main
from bevia_fast.config import GenerateConfig, ModelConfig, TrainConfig
from bevia_fast.data.bytelevel import ByteTokenizer
from bevia_fast.errors import CheckpointError, ConfigError
from bevia_fast.explorer.exploring import make_page
from bevia_fast.model.writing import stream
from bevia_fast.planning.plan import make_plan
from bevia_fast.reporter import Reporter
from bevia_fast.runs.listing import Curves
from bevia_fast.runs.trained import Run

UMLAUTS = TEXT.replace("a", "ä")  # two bytes each


def config_of(folder: Path, name: str = "run", **changes: Any) -> TrainConfig:
    (folder / "text.txt").write_text(UMLAUTS, "utf-8")
    return tiny_config(folder, name, **{"tokens": "bytes", **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(config_of(tmp_path_factory.mktemp("bytes"), film=2), Reporter())


def test_a_run_of_bytes(run: Run) -> None:
    again = Run.load(run.folder, "numpy", checkpoint="last")
    assert again.tokenizer == run.tokenizer == ByteTokenizer()
    assert again.model.config.vocab_size == 256
    assert again.config.tokens == "bytes"
    facts = json.loads((run.folder / "options.json").read_text())["facts"]
    assert facts["text"].startswith(f"{len(UMLAUTS.encode()):,} bytes, tokens are bytes; ")
    assert generate(again, "ä語", length=5).startswith("ä語")
    assert "nats per byte" in run._repr_html_()
    drawn = list(stream(again.model, again.tokenizer, GenerateConfig(run="", length=40, temperature=2.0)))
    cached = "".join(drawn)
    assert cached == "".join(
        stream(again.model, again.tokenizer, GenerateConfig(run="", length=40, temperature=2.0), use_cache=False)
    )
    assert "\ufffd" in cached


def test_its_losses_compare_with_those_of_characters(run: Run, tmp_path: Path, quick_runs: None) -> None:
    for record in run.history:
        assert (record["val_loss"] is None) == ("val_bits_per_byte" not in record)
        if record["val_loss"] is not None:
            assert record["val_bits_per_byte"] == pytest.approx(record["val_loss"] / math.log(2))
    other = train(config_of(tmp_path, "chars", tokens="chars", eval_batches=0), Reporter())
    split = UMLAUTS[int(0.9 * len(UMLAUTS)) :]
    size = len(split[1:].encode()) / len(split[1:])
    assert 1.05 < size < 1.3
    last = other.history[-1]
    assert last["val_bits_per_byte"] == pytest.approx(last["val_loss"] / math.log(2) / size)
    assert Curves.read(other.folder).bytes_per_token == pytest.approx(size)
    assert Curves.read(other.folder).bits() == pytest.approx(
        min(record["val_bits_per_byte"] for record in other.history if record["val_loss"] is not None)
    )


def test_it_resumes_with_the_same_bits(run: Run, tmp_path: Path, quick_runs: None) -> None:
    part = train(config_of(tmp_path, steps=6, min_lr=1e-4), Reporter())
    assert part.tokenizer == ByteTokenizer()
    whole = train(config_of(tmp_path, "whole"), Reporter())
    assert result(whole.folder)[:2] == result(run.folder)[:2]
    half = train(config_of(tmp_path, "half", on_nan="skip"), Interrupted())
    assert half.interrupted
    train(resume(half.folder), Reporter())
    assert result(half.folder) == result(whole.folder)
    with pytest.raises(ConfigError, match=r"tokens is chars; .* started with bytes, which cannot be changed"):
        train(resume(half.folder, tokens="chars"), Reporter())


class Interrupted(Reporter):
    """Interrupts a run as Ctrl-C does, after its fifth step."""

    def step(self, record: Any) -> None:
        if record["step"] == 5:
            import signal

            signal.raise_signal(signal.SIGINT)


def test_fine_tuning_keeps_the_tokens(run: Run, tmp_path: Path, quick_runs: None) -> None:
    config = config_of(tmp_path, "tuned", init=str(run.folder), model=ModelConfig(), tokens="chars", steps=2)
    Path(config.data[0]).write_text("語 \u0416" * 200, "utf-8")  # characters that the run has never seen
    tuned = train(config, Reporter())
    assert tuned.tokenizer == ByteTokenizer()
    assert tuned.config.tokens == "bytes"
    assert make_plan(config).vocabulary == 256
    with pytest.raises(ConfigError, match=r"tokens='bpe:300' differs from .*, whose tokens are bytes"):
        train(config_of(tmp_path, "other", init=str(run.folder), model=ModelConfig(), tokens="bpe:300"), Reporter())


def test_a_plan_knows_the_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_runs: None) -> None:
    config = config_of(tmp_path)
    plan = make_plan(config)
    assert (plan.characters, plan.vocabulary) == (len(UMLAUTS.encode()), 256)
    words = ["plan", "--data", config.data[0], "--tokens", "bytes", "--ctx", "8", "--dim", "8", "--backend", "numpy"]
    assert main(words) == 0
    assert f"{len(UMLAUTS.encode()):,} bytes, 256 distinct" in capsys.readouterr().out


def test_commands_on_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick_runs: None) -> None:
    other = train(config_of(tmp_path, "chars", tokens="chars"), Reporter())
    page = make_page(run)
    assert '"unit":"byte"' in page.html
    assert make_page(run, ["ä語"]).html.count('"tokens":[195,164,232,170,158]') == 1
    assert main(["attention", str(run.folder), "--prompt", "ä語", "--out", str(tmp_path / "a.png"),
                 "--backend", "numpy"]) == 0  # fmt: skip
    assert main(["attention", str(run.folder), "--prompt", "語語語", "--out", str(tmp_path / "b.png"),
                 "--backend", "numpy"]) == 2  # fmt: skip
    assert "The prompt has 9 bytes; the model's context is 8." in capsys.readouterr().err
    assert main(["plot", str(run.folder), str(other.folder), "--out", str(tmp_path / "both.svg")]) == 0
    assert "bits per byte" in (tmp_path / "both.svg").read_text()
    assert main(["runs", str(tmp_path), "--sort", "bits", "--json", "-"]) == 0
    printed = capsys.readouterr().out
    listed = json.loads(printed[printed.index("[") :])
    assert [each["tokens"] for each in listed if "tokens" in each] == ["chars"]
    assert main(["plot", str(run.folder), "--out", str(tmp_path / "one.svg")]) == 0
    assert "nats per byte" in (tmp_path / "one.svg").read_text()
    assert main(["plot", str(run.folder), str(other.folder), "--y", "nats", "--out", str(tmp_path / "n.svg")]) == 0
    assert "nats per token" in (tmp_path / "n.svg").read_text()


def test_bits_are_not_made_up(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    old = shutil.copytree(run.folder, tmp_path / "old")
    lines = [json.loads(line) for line in (old / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("val_bits_per_byte", None)
    (old / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Curves.read(old).bits() is None
    assert main(["plot", str(old), "--y", "bits", "--out", str(tmp_path / "x.png")]) == 2
    assert "has no evaluation in bits per byte" in capsys.readouterr().err
    assert main(["runs", str(tmp_path)]) == 0


def test_an_export_says_what_bytes_are(run: Run, tmp_path: Path) -> None:
    assert main(["export", str(run.folder), "--to", str(tmp_path / "hf")]) == 0
    about = json.loads((tmp_path / "hf" / "tokenizer.json").read_text("utf-8"))
    assert sorted(about["model"]["vocab"].values()) == list(range(256))
    assert about["model"]["merges"] == []
    assert np.array_equal(Run.load(tmp_path / "hf", "numpy").tokenizer.encode("ä"), [195, 164])
    assert main(["import", str(tmp_path / "hf"), "--out", str(tmp_path / "back")]) == 0
    assert Run.load(tmp_path / "back", "numpy").tokenizer == ByteTokenizer()


def test_a_file_with_another_kind_of_tokens_is_refused(run: Run, tmp_path: Path) -> None:
    from small_runs import metadata, signed

    whole = (run.folder / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(signed({**metadata(whole), "tokens": "words"}, whole))
    with pytest.raises(CheckpointError, match="its kind of tokens is unknown"):
        Run.load(path, "numpy")
