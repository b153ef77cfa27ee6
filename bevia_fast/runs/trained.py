"""A trained model, loaded and ready to write."""

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
    """A run: a model, its vocabulary, and the folder that it is saved in. Returned by `train` and `Run.load`."""

    folder: Path
    model: GPT
    tokenizer: Tokenizer
    interrupted: int = 0
    """The number of the signal that ended training before its last step (2 for Ctrl-C), or 0."""

    @classmethod
    def load(cls, path: str | Path, backend: BackendName = "numba", threads: int = 0) -> Run:
        """Load a run folder or a model file. Raises CheckpointError."""
        parameters, tokenizer = load_model(path)
        model = GPT(parameters.config, open_backend(backend, threads), parameters)
        return cls(model_path(path).parent, model, tokenizer)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one per step: step, loss, val_loss, lr, grad_norm, tokens_per_s."""
        return read_metrics(self.folder)


def generate(run: Run | str | Path, prompt: str = "", **options: Any) -> str:
    """Return a text that starts with `prompt` and continues as sampled from the model of `run`.

    `run` is a `Run`, or the path of a run folder. Options are the other fields of `GenerateConfig`: length=500,
    temperature=0.8, top_k=0, top_p=1.0, seed=1337, and for a path also backend="numba", threads=0. Raises DataError for
    a prompt with characters that the model does not know.
    """
    config = GenerateConfig(run="", prompt=prompt, **options)
    if isinstance(run, str | Path):
        run = Run.load(run, config.backend, config.threads)
    return prompt + "".join(stream(run.model, run.tokenizer, config))
