"""While a run trains: keep its weights at the steps of its film."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..config import TrainConfig
from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError
from ..model.parameters import Parameters
from ..runs.film import cut_film, film_steps, save_frame


class Filming:
    """Writes the frames of a run's film, each before the checkpoint of its step.

    So the frames up to a checkpoint are on disk when a run resumes from it, and the later ones are made again with the
    same bits. `count` frames were written, of `size` bytes altogether, in `seconds`.
    """

    def __init__(
        self, run: Path, config: TrainConfig, tokenizer: Vocabulary, weights: Parameters, note: Callable[[str], None]
    ) -> None:
        self.run, self.tokenizer, self.weights, self._note = run, tokenizer, weights, note
        self.steps = frozenset(film_steps(config.steps, config.film))
        self.count, self.size, self.seconds = 0, 0, 0.0

    def begin(self, step: int) -> None:
        """Begin after step `step`: remove the frames of later steps, which an interrupted run may have left."""
        try:
            cut_film(self.run, step)
        except CheckpointError as error:
            self._note(str(error))
        self.show(step)

    def show(self, step: int, last: bool = False) -> None:
        """Write a frame of the weights after step `step`, if it is one of the film's or the `last` of the run.

        A frame that cannot be written is a note and missing in the film: training is worth more.
        """
        if step not in self.steps and not (last and self.steps):
            return
        began = time.monotonic()
        try:
            self.size += save_frame(self.run, self.weights, self.tokenizer, step)
            self.count += 1
        except CheckpointError as error:
            self._note(f"step {step:,} is missing in the film: {error}")
        self.seconds += time.monotonic() - began
