"""When a run is saved, and what happens if that fails."""

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

SHARE = 25  # --save-seconds lets training continue for at least this many times the duration of the last save


class Saver:
    """Saves a run when a save is due. A failure is reported and kept in `problem`; the next save retries."""

    def __init__(
        self, folder: RunFolder, config: TrainConfig, tokenizer: Tokenizer, fingerprint: str, progress: Progress,
        tensors: dict[str, Parameters], tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.folder, self.config, self.tokenizer, self.fingerprint = folder, config, tokenizer, fingerprint
        self.progress, self.tensors, self._tell = progress, tensors, tell
        self.problem = ""
        versions()  # cached now, while the disk works
        self.count, self.seconds, self.size = 0, 0.0, 0
        self._saved: tuple[int, bool] | None = None  # step, and whether its evaluation was unfinished
        # damaged checkpoints that the run would otherwise have resumed from
        later = [path for step, path in checkpoints(folder.path) if step > progress.step]
        self._damaged = [path for path in later if is_damaged(path)]
        self._last, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Return whether a checkpoint is due after the step that was just completed."""
        every, seconds = self.config.save_every, self.config.save_seconds
        if every and self.progress.step % every == 0:
            return True
        return seconds > 0.0 and time.monotonic() - self._last >= max(seconds, SHARE * self._took)

    def save(self) -> None:
        """Write checkpoint and model, each atomically; then remove old checkpoints."""
        state = self.progress.step, self.progress.unfinished is not None
        if state == self._saved:
            return
        began, failed, what = time.monotonic(), self.problem, "is not saved"
        try:
            self._write_checkpoint()
            self.count += 1
            self._remove_old()
            what = f"is saved, except {MODEL}"
            save_model(self.folder.path / MODEL, self.tensors["weights"], self.tokenizer, state[0])
        except CheckpointError as error:
            self.problem = str(error)
            self._tell(f"step {state[0]:,} {what}: {self.problem} Training continues; the next save retries.")
        else:
            self.problem, self._saved = "", state
            if failed:
                self._tell(f"step {state[0]:,} is saved; the disk works again.")
        self._last = time.monotonic()
        self._took = self._last - began
        self.seconds += self._took

    def _write_checkpoint(self) -> None:
        folder, progress = self.folder.path, self.progress
        self.folder.sync()  # first, since a resumed run would not write a missing line again
        with writing(folder / CHECKPOINTS), contextlib.suppress(FileExistsError):
            (folder / CHECKPOINTS).mkdir()
            sync_folder(folder)
        self.size = save_checkpoint(folder, self.config, self.tokenizer, progress, self.fingerprint, self.tensors)

    def _remove_old(self) -> None:
        """Keep the newest checkpoints of completed steps. Of later ones, remove only damaged ones: others may be from
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
        """Inside this context, write a file that resuming does not need; report a failure and keep it in `problem`."""
        try:
            yield
        except CheckpointError as error:
            self.problem = self.problem or str(error)
            self._tell(str(error))
