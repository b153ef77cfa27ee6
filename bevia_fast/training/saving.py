"""When a run is saved, and what happens when the disk does not take it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from ..config import TrainConfig
from ..data.tokenizer import Tokenizer
from ..errors import CheckpointError
from ..files import MODEL, sync_folder, writing
from ..model.parameters import Parameters
from ..runs.checkpoint import Progress, checkpoints, save_checkpoint, versions
from ..runs.folder import CHECKPOINTS, RunFolder
from ..runs.modelfile import save_model
from ..runs.tensorfile import is_damaged

SHARE = 25  # times as long as saving took, --save-seconds lets the training go on


class Saver:
    """Saves a run when it is time to. A failure is told and kept in `problem`; the next save tries again."""

    def __init__(
        self, folder: RunFolder, config: TrainConfig, tokenizer: Tokenizer, fingerprint: str, progress: Progress,
        tensors: dict[str, Parameters], tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.folder, self.config, self.tokenizer, self.fingerprint = folder, config, tokenizer, fingerprint
        self.progress, self.tensors, self._tell = progress, tensors, tell
        self.problem = ""
        versions()  # looked up now, while all is well
        self.count, self.seconds, self.size = 0, 0.0, 0
        self._saved: tuple[int, bool] | None = None  # step, and whether its evaluation was still to be done
        # that the run would have gone on from, if they could be read
        later = [path for step, path in checkpoints(folder.path) if step > progress.step]
        self._damaged = [path for path in later if is_damaged(path)]
        self._last, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether a checkpoint is to be written after the step that was just done."""
        every, seconds = self.config.save_every, self.config.save_seconds
        if every and self.progress.step % every == 0:
            return True
        return seconds > 0.0 and time.monotonic() - self._last >= max(seconds, SHARE * self._took)

    def save(self) -> None:
        """Write checkpoint and model, each whole or not at all; remove older checkpoints once there is a new one."""
        state = self.progress.step, self.progress.unfinished is not None
        if state == self._saved:
            return
        began, failed, what = time.monotonic(), self.problem, "is not saved"
        try:
            self._write_checkpoint()
            self.count += 1
            self._remove_old()
            what = f"is saved, but for {MODEL}"
            save_model(self.folder.path / MODEL, self.tensors["weights"], self.tokenizer, state[0])
        except CheckpointError as error:
            self.problem = str(error)
            self._tell(f"step {state[0]:,} {what}: {self.problem} Training goes on; the next save tries again.")
        else:
            self.problem, self._saved = "", state
            if failed:
                self._tell(f"step {state[0]:,} is saved; the disk takes it again.")
        self._last = time.monotonic()
        self._took = self._last - began
        self.seconds += self._took

    def _write_checkpoint(self) -> None:
        folder, progress = self.folder.path, self.progress
        self.folder.sync()  # first, so that no line is missing that a resumed run would not write again
        with writing(folder / CHECKPOINTS), contextlib.suppress(FileExistsError):
            (folder / CHECKPOINTS).mkdir()
            sync_folder(folder)
        self.size = save_checkpoint(folder, self.config, self.tokenizer, progress, self.fingerprint, self.tensors)

    def _remove_old(self) -> None:
        """Keep the newest ones of steps that were done. Of later ones go those that are damaged: others may be of
        another version of the program."""
        try:
            found = checkpoints(self.folder.path)
            done = [path for step, path in found if step <= self.progress.step]
            later = [path for step, path in found if step > self.progress.step]
            for path in (*done[self.config.keep :], *(path for path in later if path in self._damaged)):
                os.unlink(path)
        except (CheckpointError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._tell(f"an old checkpoint cannot be removed: {reason}.")

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Within, a file is written that no resumed run needs; a failure is told, and a problem."""
        try:
            yield
        except CheckpointError as error:
            self.problem = self.problem or str(error)
            self._tell(str(error))
