"""A trained model, ready to use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends import open_backend
from ..config import BackendName, GenerateConfig
from ..data.tokenizer import Tokenizer
from ..model.gpt import GPT
from ..model.writing import stream
from .folder import read_metrics
from .modelfile import load_model, model_path


@dataclass
class Run:
    """A trained model with its vocabulary and its folder, as `train` returns it and `Run.load` reads it."""

    folder: Path
    model: GPT
    tokenizer: Tokenizer
    interrupted: int = 0
    """Number of the signal that ended training before its last step, such as 2 for Ctrl-C; 0 if there was none."""

    @classmethod
    def load(cls, path: str | Path, backend: BackendName = "numba", threads: int = 0) -> Run:
        """Read a run folder or a model file. Raises CheckpointError if that fails."""
        parameters, tokenizer = load_model(path)
        model = GPT(parameters.config, open_backend(backend, threads), parameters)
        return cls(model_path(path).parent, model, tokenizer)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one per step, with step, loss, val_loss, lr, grad_norm and tokens_per_s."""
        return read_metrics(self.folder)


def generate(run: Run | str | Path, prompt: str = "", **options: Any) -> str:
    """Return `prompt` followed by text that the model of `run` writes.

    `run` is the result of `train`, or the path of a run folder. The options are the other fields of `GenerateConfig`:
    length=500, temperature=0.8, top_k=0, top_p=1.0, seed=1337, and for a path backend="numba", threads=0.
    Raises DataError for a prompt with characters that are not in the model's alphabet, and CheckpointError for a path
    that holds no model.
    """
    config = GenerateConfig(run="", prompt=prompt, **options)
    if isinstance(run, str | Path):
        run = Run.load(run, config.backend, config.threads)
    return prompt + "".join(stream(run.model, run.tokenizer, config))
