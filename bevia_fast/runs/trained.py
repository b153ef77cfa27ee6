"""A trained model, ready to use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import open_backend
from ..config import BEST_ONE, BackendName, GenerateConfig, ModelConfig, TrainConfig, check_checkpoint
from ..data.vocabulary import Vocabulary
from ..describing import table
from ..errors import CheckpointError, ConfigError, shown
from ..files import BEST, MODEL, is_file, is_folder, options_file, reading, refuse_nul, refuse_special, writing
from ..model.gpt import GPT
from ..model.writing import stream
from .checkpoint import ADDED
from .choosing import chosen_model
from .folder import read_metrics
from .modelfile import known_fields, load_trained, run_of, save_model

if TYPE_CHECKING:
    from ..plots import Picture


@dataclass(repr=False)
class Run:
    """A trained model with its vocabulary and its folder, as `train` returns it and `Run.load` reads it."""

    folder: Path
    """Where its files are."""
    model: GPT
    """The transformer and its weights."""
    tokenizer: Vocabulary
    """Its vocabulary."""
    interrupted: int = 0
    """Number of the signal that ended training before its last step, such as 2 for Ctrl-C; 0 if there was none."""
    step: int = 0
    """The optimizer steps that the weights were trained for."""

    @classmethod
    def load(
        cls, path: str | Path, backend: BackendName = "numba", threads: int = 0, checkpoint: str | int = BEST_ONE
    ) -> Run:
        """Read a run folder, a model file or a checkpoint.

        Of a run folder, `checkpoint` chooses the model: "best" is that of the best validation loss, "last" that of the
        last step; a number is the step of a frame of the film or of a checkpoint. Raises CheckpointError if there is no
        such model, or if it cannot be read.
        """
        check_checkpoint(str(checkpoint))
        file = chosen_model(path, str(checkpoint))
        parameters, tokenizer, step = load_trained(file)
        model = GPT(parameters.config, open_backend(backend, threads), parameters)
        return cls(run_of(file) or file.parent, model, tokenizer, step=step)

    @property
    def config(self) -> TrainConfig:
        """The options that the run was trained with, from its options.json. The sizes alone are in `run.model.config`.

        Raises CheckpointError if the file is missing or invalid, as beside a model file that was copied.
        """
        return read_config(self.folder)

    @property
    def best(self) -> Run:
        """The run with the weights of its best validation loss, read from its best.safetensors, on the same backend.

        A run without that file, as of an earlier version, returns itself. Raises CheckpointError if it is damaged.
        """
        file = self.folder / BEST
        with reading(file):
            if not is_file(file):
                return self
        parameters, tokenizer, step = load_trained(file)
        return Run(self.folder, GPT(parameters.config, self.model.backend, parameters), tokenizer, step=step)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, one per step, with step, loss, val_loss, lr, grad_norm and tokens_per_s."""
        return read_metrics(self.folder)

    def plot(self) -> Picture:
        """Return the picture of training and validation loss over the steps, a matplotlib Figure.

        A notebook shows it. `run.plot().savefig("loss.pdf")` writes it to a file. Raises CheckpointError if the run's
        metrics.jsonl cannot be read.
        """
        from ..plots import about, draw_losses

        return draw_losses(self.history, about(self.folder, self.model.config), self.tokenizer.unit)

    def save(self, path: str | Path) -> Path:
        """Write the model to a file that `Run.load` and every command read, and return its path.

        `path` is the file, or an existing folder for its model.safetensors. The file is complete or is not written.
        Raises CheckpointError if that fails; an older file then stays.
        """
        path = Path(path)
        refuse_nul(path, "a file")
        with writing(path):
            if is_folder(path):
                path = path / MODEL
        save_model(path, self.model.parameters, self.tokenizer, self.step)
        return path

    def __repr__(self) -> str:
        return f"<Run {str(self.folder)!r} after {self.step:,} steps: {self.model!r}>"

    def _repr_html_(self) -> str:
        rows = [
            ("folder", str(self.folder)),
            ("steps", f"{self.step:,}{', interrupted' if self.interrupted else ''}"),
            *self._last_losses(),
            ("model", repr(self.model)[1:-1]),
            ("tokens" if self.tokenizer.stored().get("tokens") else "alphabet", self.tokenizer.shown()),
        ]
        return table("Run", rows)

    def _last_losses(self) -> list[tuple[str, str]]:
        try:
            history = self.history
        except CheckpointError:  # a model file without its run
            return []
        names = ("loss", "training loss"), ("val_loss", "validation loss")
        last = [(label, [record[name] for record in history if record.get(name) is not None]) for name, label in names]
        return [(label, f"{values[-1]:.4f} nats per {self.tokenizer.unit}") for label, values in last if values]


def read_config(folder: Path) -> TrainConfig:
    """Return the options in the options.json of a run. Raises CheckpointError if it is missing or invalid."""
    with reading(folder):
        path = options_file(folder)
    with reading(path):
        refuse_special(path)
        content = path.read_bytes()
    try:
        found = json.loads(content)
        model = ModelConfig(**known_fields(ModelConfig, found["model"]))
        return TrainConfig(**{**known_fields(TrainConfig, {**ADDED, **found}), "model": model})
    except (ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{path} does not describe a run: {shown(error)}.") from None


def generate(
    run: Run | str | Path,
    prompt: str = "",
    *,
    length: int = 500,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 1337,
    backend: BackendName = "numba",
    threads: int = 0,
    checkpoint: str = BEST_ONE,
) -> str:
    """Return `prompt` followed by `length` tokens that the model of `run` writes; usually, a token is a character.

    `run` is the result of `train`, or the path of a run folder or a model file, which is opened with `backend` on
    `threads` threads; `checkpoint` chooses the model of a run folder, see `Run.load`. A `temperature` below 1 sharpens
    the distribution, above 1 flattens it; with 0, the most likely token is always taken. `top_k` samples from the k
    most likely tokens only (0: from all), `top_p` from the smallest set with at least this total probability. The
    same `seed` writes the same text.

    Raises DataError for a prompt with characters that are not in the model's alphabet, CheckpointError for a path that
    holds no model, and ConfigError for an invalid option.
    """
    if not isinstance(run, Run | str | Path):
        raise ConfigError(f"run is {shown(repr(run), 60)}; it must be a Run, or the path of a run folder.")
    config = GenerateConfig(
        run="", prompt=prompt, length=length, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        backend=backend, threads=threads, checkpoint=str(checkpoint),
    )  # fmt: skip
    if isinstance(run, str | Path):
        run = Run.load(run, config.backend, config.threads, config.checkpoint)
    return prompt + "".join(stream(run.model, run.tokenizer, config))
