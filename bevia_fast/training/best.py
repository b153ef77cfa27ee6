"""While a run trains: keep the weights of the best validation loss, and say when to stop for want of a better one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ..data.vocabulary import Vocabulary
from ..errors import CheckpointError
from ..files import BEST
from ..model.parameters import Parameters
from ..runs.best import remove_earlier, restore_best, save_best
from ..runs.checkpoint import checkpoints
from ..runs.progress import Best, Progress


class BestModel:
    """Writes best.safetensors at each evaluation that is better than all before it, and before the checkpoint of it.

    So a run that resumes from a checkpoint finds the best model up to there, and finds the later ones again with the
    same bits.
    """

    def __init__(
        self, run: Path, tokenizer: Vocabulary, weights: Parameters, progress: Progress, note: Callable[[str], None],
        *, trained: bool = False,
    ) -> None:  # fmt: skip
        """`trained`: whether the run began with the weights of another one."""
        self.trained = trained
        self.run, self.tokenizer, self.weights, self.progress, self._note = run, tokenizer, weights, progress, note
        self._named: dict[int, int | None] = {}  # the step of each checkpoint: the step of the best model that it names

    def begin(self) -> None:
        """Bring the files back to the step where the run begins or goes on."""
        best, step = self.progress.best, self.progress.step
        try:
            there = restore_best(self.run, self.weights, self.tokenizer, best.step, step)
        except CheckpointError as error:
            self._note(str(error))
            return
        if not there:
            at = f"of step {best.step:,}"
            self._note(f"{BEST} {at} is missing or damaged; the best model is chosen anew from here.")
            self.progress.best = Best()

    def judge(self, loss: float) -> None:
        """Take note of the validation loss after the current step, and keep the weights if it is the best.

        Where they cannot be written, the best model until now stays; training is worth more.
        """
        best, step = self.progress.best, self.progress.step
        if step == 0 and not self.trained:
            return
        if not math.isfinite(loss) or (best.loss is not None and loss >= best.loss):
            best.since += 1
            return
        best.since = 0
        try:
            save_best(self.run, self.weights, self.tokenizer, step, best.step)
        except CheckpointError as error:
            self._note(f"step {step:,} is the best so far, but is not kept as such: {error}")
        else:
            best.step, best.loss = step, loss

    def checkpointed(self) -> None:
        """After a checkpoint: remove earlier best models that no checkpoint names.

        Those of the process that was interrupted are not known here, so nothing is removed until they are gone.
        """
        try:
            there = [step for step, _ in checkpoints(self.run) if step <= self.progress.step]
            if self.progress.step in there:
                self._named[self.progress.step] = self.progress.best.step
            if all(step in self._named for step in there):
                remove_earlier(self.run, {self._named[step] for step in there})
        except CheckpointError as error:
            self._note(f"cannot remove an earlier best model: {error}")


def verdict(best: Best, step: int, loss: float, training_loss: float) -> str:
    """Return in words how the last validation loss, after `step`, compares with the best one.

    Overfitting is a validation loss that has risen by more than 1 % while `training_loss`, the average over the last
    steps, is below the best of it: the model still learns, but not what it is tested on.
    """
    assert best.loss is not None
    if best.step == step:
        return f"{best.loss:.3f} at the end"
    at_end = f"{best.loss:.3f} at step {best.step:,}; {loss:.3f} at the end"
    return f"{at_end}: overfitting" if loss > 1.01 * best.loss > training_loss * 1.01 else at_end
