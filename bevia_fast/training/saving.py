"""When a run is saved, and what happens when a save fails."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from ..config import TrainConfig
from ..data.vocabulary import Vocabulary
from ..doors.hub import write_hub_files
from ..errors import CheckpointError
from ..files import CHECKPOINTS, MODEL, sync_folder, writing
from ..model.parameters import Parameters
from ..runs.checkpoint import checkpoints, save_checkpoint, versions
from ..runs.folder import RunFolder
from ..runs.modelfile import save_model
from ..runs.progress import Progress
from ..runs.tensorfile import is_damaged

SHARE = 25  # --save-seconds waits at least this many times as long as the last save took


class Saver:
    """Saves a run when a checkpoint is due.

    A failed save is passed to `note`, kept in `problem` and retried at the next save. `count` checkpoints were written,
    the last of `size` bytes, in `seconds` altogether.
    """

    def __init__(
        self, folder: RunFolder, config: TrainConfig, tokenizer: Vocabulary, fingerprint: str, progress: Progress,
        tensors: dict[str, Parameters], note: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.folder, self.config, self.tokenizer, self.fingerprint = folder, config, tokenizer, fingerprint
        self.progress, self.tensors, self._note = progress, tensors, note
        self.problem = ""
        versions()  # reads the disk, so do it before the disk may fail
        self.count, self.seconds, self.size = 0, 0.0, 0
        self._described = False  # to other programs; what they read beside the weights does not change
        self._saved: tuple[int, bool] | None = None  # (step, whether its evaluation was unfinished)
        # Damaged checkpoints of later steps; had they been intact, the run would have resumed from them.
        later = [path for step, path in checkpoints(folder.path) if step > progress.step]
        self._damaged = [path for path in later if is_damaged(path)]
        self._last, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Return whether a checkpoint is due after the step just done."""
        every, seconds = self.config.save_every, self.config.save_seconds
        if every and self.progress.step % every == 0:
            return True
        return seconds > 0.0 and time.monotonic() - self._last >= max(seconds, SHARE * self._took)

    def save(self) -> None:
        """Write the checkpoint and the model, each atomically, and remove old checkpoints after the new one is written.

        Does nothing if the current state is already saved.
        """
        state = self.progress.step, self.progress.unfinished is not None
        if state == self._saved:
            return
        began, failed, what = time.monotonic(), self.problem, "is not saved"
        try:
            self._write_checkpoint()
            self.count += 1
            self._remove_old()
            what = f"is saved, except for {MODEL}"
            save_model(self.folder.path / MODEL, self.tensors["weights"], self.tokenizer, state[0])
            if not self._described:
                what = "is saved, except for what other programs read"
                write_hub_files(self.folder.path, self.config.model, self.tokenizer)
                self._described = True
        except CheckpointError as error:
            self.problem = str(error)
            self._note(f"step {state[0]:,} {what}: {self.problem} Training continues; the next save tries again.")
        else:
            self.problem, self._saved = "", state
            if failed:
                self._note(f"step {state[0]:,} is saved; writing works again.")
        self._last = time.monotonic()
        self._took = self._last - began
        self.seconds += self._took

    def _write_checkpoint(self) -> None:
        folder, progress = self.folder.path, self.progress
        self.folder.sync()  # first: a resumed run does not write the lines up to its checkpoint again
        with writing(folder / CHECKPOINTS):
            with contextlib.suppress(FileExistsError):
                (folder / CHECKPOINTS).mkdir()
            sync_folder(folder)  # a checkpoint is only as safe as the name of its folder
        self.size = save_checkpoint(folder, self.config, self.tokenizer, progress, self.fingerprint, self.tensors)

    def _remove_old(self) -> None:
        """Keep the newest --keep checkpoints up to the current step; of later steps, remove only damaged ones.

        Other checkpoints of later steps may have been written by another version of the program, which can read them.
        """
        try:
            found = checkpoints(self.folder.path)
            done = [path for step, path in found if step <= self.progress.step]
            later = [path for step, path in found if step > self.progress.step]
            for path in (*done[self.config.keep :], *(path for path in later if path in self._damaged)):
                os.unlink(path)
        except (CheckpointError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._note(f"cannot remove an old checkpoint: {reason}.")

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Inside this context, write a file that resuming does not need; a failure is noted and becomes `problem`."""
        try:
            yield
        except CheckpointError as error:
            self.problem = self.problem or str(error)
            self._note(str(error))
