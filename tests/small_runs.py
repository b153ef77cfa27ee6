"""Runs of a very small model, and what must be equal if two runs are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bevia_fast.config import ModelConfig, TrainConfig
from bevia_fast.reporter import Record, Reporter
from bevia_fast.runs.checkpoint import PARTS, Checkpoint, newest_good
from bevia_fast.runs.folder import read_metrics
from bevia_fast.runs.modelfile import load_model

TEXT = "the cat sat on the mat, and the dog sat on the log.\n" * 12
TINY = ModelConfig(ctx=8, dim=8, layers=2, heads=2, dropout=0.1)


def tiny_config(folder: Path, name: str = "run", **changes: Any) -> TrainConfig:
    """Return the options of a run that takes milliseconds, and write its text into `folder`."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(TEXT)
    options: dict[str, Any] = {
        "data": [str(text)], "out": str(folder / name), "model": TINY, "steps": 10, "batch": 2, "warmup": 2,
        "lr": 1e-3, "min_lr": 1e-4,
        "eval_every": 4, "eval_batches": 2, "sample_every": 0, "save_every": 3, "save_seconds": 0.0,
        "film": 0, "backend": "numpy",
    }  # fmt: skip
    return TrainConfig(**{**options, **changes})


def digest(checkpoint: Checkpoint) -> str:
    """Return a hash of the bits of weights and moments."""
    return hashlib.sha256(b"".join(checkpoint.tensors[part].flat.tobytes() for part in PARTS)).hexdigest()


def result(run: str | Path) -> tuple[int, str, list[Record]]:
    """Return all that an interruption must not change: step, bits and metrics.

    Also checks that the model file has the checkpoint's weights.
    """
    checkpoint, damaged = newest_good(run)
    assert not damaged
    assert load_model(run)[0].flat.tobytes() == checkpoint.tensors["weights"].flat.tobytes()
    lines = [{key: value for key, value in line.items() if key != "tokens_per_s"} for line in read_metrics(Path(run))]
    return checkpoint.progress.step, digest(checkpoint), lines


def metadata(whole: bytes) -> Any:
    """Return the metadata of a checkpoint or model file."""
    size = int.from_bytes(whole[:8], "little")
    return json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["bevia-fast"])


def signed(about: Any, whole: bytes) -> bytes:
    """Return a checkpoint or model file with other metadata and the matching checksum."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["bevia-fast"] = json.dumps(about)
    return signed_header(header, whole[8 + size :])


def signed_header(header: Any, data: bytes) -> bytes:
    """Return a file with any header, which begins as usual, and the matching checksum."""
    text = json.dumps(header, separators=(",", ":")).encode()
    start, rest = len(text).to_bytes(8, "little") + text[:29], text[93:] + data
    return start + hashlib.sha256(start + rest).hexdigest().encode() + rest


class Acting(Reporter):
    """Calls a function after a step, and records the notes."""

    def __init__(self, step: int = -1, act: Callable[[], object] = lambda: None) -> None:
        self.when, self.act = step, act
        self.notes: list[str] = []

    def step(self, record: Record) -> None:
        if record["step"] == self.when:
            self.act()

    def note(self, text: str) -> None:
        self.notes.append(text)
