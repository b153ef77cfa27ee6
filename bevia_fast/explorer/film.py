"""What the prompts look like through the film of a run: a small model of each of its frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..model.gpt import GPT
from ..naming import option
from ..runs.film import frames
from ..runs.modelfile import load_trained
from ..runs.trained import Run
from .encoding import Stored, Tensor
from .prompts import Prompt
from .tracing import best, lens, probabilities, surprise, trace

Array = NDArray[Any]


@dataclass(frozen=True)
class Basis:
    """Two directions in which the characters' embeddings differ most, for a map that does not turn between frames."""

    center: Array  # (C,)
    directions: Array  # (C, 2)

    @classmethod
    def of(cls, table: Array) -> Basis:
        """Return the first two principal components of a table (V, C)."""
        center = table.mean(axis=0, dtype=np.float64)
        _, _, rows = np.linalg.svd(table - center, full_matrices=False)
        directions = np.zeros((2, table.shape[1]))
        directions[: len(rows[:2])] = rows[:2]
        # a component has no sign of its own: its largest coordinate is made positive
        largest = directions[[0, 1], np.abs(directions).argmax(axis=1)]
        return cls(center, (directions * np.where(largest < 0, -1.0, 1.0)[:, None]).T)

    def project(self, table: Array) -> Array:
        """Return where the rows of a table (V, C) are on the map: (V, 2)."""
        result: Array = (table - self.center) @ self.directions
        return result


@dataclass(frozen=True)
class Frame:
    """A model of the film."""

    step: int
    model: GPT


def film(run: Run) -> tuple[list[tuple[int, Path]], str]:
    """Return the frames of a run's film that lead to its model, and a note if there is none."""
    try:
        found = [(step, path) for step, path in frames(run.folder) if step < run.step]
    except CheckpointError as error:
        return [], f"The film cannot be shown: {error}"
    if not found:
        return [], f"This run has no film, so only its last step is shown; {option('film', 16)} keeps one in training."
    return found, ""


def look(run: Run, found: Sequence[tuple[int, Path]]) -> Iterator[Frame]:
    """Yield each frame as a model, and the final model as the last one. Raises CheckpointError for a damaged file."""
    for step, path in found:
        parameters, tokenizer, _ = load_trained(path)
        sizes = (parameters.config.layers, parameters.config.heads, parameters.config.dim, parameters.config.ctx)
        final = run.model.config
        if tokenizer != run.tokenizer or sizes != (final.layers, final.heads, final.dim, final.ctx):
            raise CheckpointError(f"{path} is of another model than {run.folder}.")
        yield Frame(step, GPT(parameters.config, run.model.backend, parameters))
    yield Frame(run.step, run.model)


def frame_tensors(number: int, frame: Frame, prompts: Sequence[Prompt], basis: Basis) -> Iterator[Tensor]:
    """Yield what the page shows of a frame."""
    ids: Stored = "uint16" if frame.model.config.vocab_size <= 1 << 16 else "exact"
    for index, prompt in enumerate(prompts):
        found, name = trace(frame.model, prompt.tokens), f"film/{number}/{index}"
        guesses, certainty = best(lens(frame.model, found), 1)
        likeliest, shares = best(probabilities(found.logits))
        yield Tensor(f"{name}/weights", np.stack([layer.weights for layer in found.layers]), "uint8", lower=True)
        yield Tensor(f"{name}/lens.token", guesses[..., 0].astype(np.float32), ids)
        yield Tensor(f"{name}/lens.probability", certainty[..., 0], "float16")
        yield Tensor(f"{name}/surprise", surprise(found).astype(np.float32))
        yield Tensor(f"{name}/top.token", likeliest.astype(np.float32), ids)
        yield Tensor(f"{name}/top.probability", shares, "float16")
    place = basis.project(frame.model.parameters["wte.weight"])
    yield Tensor(f"film/{number}/embedding", place.astype(np.float32))
