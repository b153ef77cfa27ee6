"""The training loop: take steps, evaluate, log, save.

The module is not called `train`, because `bevia_fast.train` is the function.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable

import numpy as np

from ..config import TrainConfig
from ..data.corpus import usual_evaluation
from ..decorations import drawn
from ..errors import StoppedRun, counted
from ..files import LOSS, SAMPLE, write_atomically
from ..naming import option, resuming
from ..reporter import Record, Reporter
from ..runs.trained import Run
from .best import BestModel, verdict
from .diagnosis import describe_origin
from .evaluation import bits_per_byte, bytes_per_token, evaluate, short_sample
from .filming import Filming
from .opening import FIRST_RECORD, Prepared, begin, compile_and_describe, open_folder, prepare
from .saving import Saver
from .signals import finish_on_signal
from .step import not_finite

FINAL_SAMPLE_LENGTH = 500  # tokens
TICK = 1e-9  # seconds; a virtual machine's clock can stand still for a whole step
MOST_SKIPPED = 10  # consecutive steps with --on-nan skip; a run that needs more will not recover


def train(config: TrainConfig, reporter: Reporter) -> Run:
    """Train a model from the first step to the last and return the run; see `from_python.train`, which users call.

    With `config.resume`, continue a run (see `checkpoint.resume`).
    """
    with contextlib.closing(open_folder(config)) as folder:
        prepared = prepare(config, reporter)
        reporter.start(prepared.config)
        ended: Run | None = None
        try:
            facts = compile_and_describe(prepared, reporter)
            with finish_on_signal(reporter.interrupted) as stop:
                saver = begin(prepared, folder, facts, reporter)
                run = Run(folder.path, prepared.trainer.model, prepared.corpus.tokenizer, step=saver.progress.step)
                if prepared.budget is not None:
                    reporter.budget(prepared.budget.seconds)
                with np.errstate(all="ignore"):  # every step checks for NaN and infinity itself
                    _Session(prepared, run, saver, reporter, stop).run_to_end()
            run.model.forget()
            ended = run
        finally:
            reporter.end(ended.folder if ended else None, ended.interrupted if ended else 0)
    return run


class _Session:
    """The steps of a run, and the evaluating, logging, showing and saving between them."""

    def __init__(
        self, prepared: Prepared, run: Run, saver: Saver, reporter: Reporter, stop: Callable[[], int]
    ) -> None:
        """`stop` returns the number of the signal that asked the run to end, or 0."""
        self.config, self.trainer, self.crosscheck = prepared.config, prepared.trainer, prepared.crosscheck
        self.validation, self.progress = prepared.corpus.validation, prepared.progress
        self.run, self.saver, self.reporter, self.stop = run, saver, reporter, stop
        self.updating = False  # the weights are between two steps
        self.skipped_in_a_row = self._skipped_before()
        self.eval_batches = self._evaluated_batches()
        self.film = Filming(run.folder, prepared.config, run.tokenizer, self.trainer.weights, reporter.note)
        self.best = BestModel(
            run.folder, run.tokenizer, self.trainer.weights, self.progress, reporter.note,
            trained=bool(self.config.init),
        )  # fmt: skip
        self.evaluated: tuple[int, float] | None = None  # the last evaluation: step and loss

    def run_to_end(self) -> None:
        """Take the steps from the current one to the last, or until a signal arrives; save, and write a sample."""
        progress, began = self.progress, time.monotonic()
        try:
            self.film.begin(progress.step)
            self.best.begin()
            if progress.unfinished is not None:
                if not self.config.resume:
                    self._save()  # so that an interruption before the first step can be resumed
                self._conclude(progress.unfinished)
            while not self._done() and not self.stop():
                record = self._step(progress.step + 1)
                self.film.show(progress.step)  # before the checkpoint, see Filming
                self._conclude(record)
                if self.saver.due():
                    self._save()
            if self._patience_ended():
                self.film.show(progress.step, last=True)
        except Exception:  # a NaN; the reader of our output closed the pipe; a reporter failed
            if not self.updating:
                self._save()
                self._draw()
            raise
        self.run.interrupted = self.stop() if not self._done() or progress.unfinished else 0
        self.run.step = progress.step
        self._save()
        seconds = time.monotonic() - began
        self._draw()
        text = short_sample(self.run, self.config.seed, FINAL_SAMPLE_LENGTH)
        with self.saver.trying():
            write_atomically(self.run.folder / SAMPLE, (text + "\n").encode("utf-8", "replace"))
        self.reporter.sample(progress.step, text)
        self.reporter.saved(self.saver.count, self.saver.size, self.saver.seconds, seconds)
        if self.film.count:
            self.reporter.filmed(self.film.count, self.film.size, self.film.seconds, seconds)
        self._report_best()
        if self.saver.problem:
            raise StoppedRun(f"The run reached step {progress.step:,}, but the last save failed: {self.saver.problem}")

    def _done(self) -> bool:
        return self.progress.step >= self.config.steps or self._patience_ended()

    def _patience_ended(self) -> bool:
        """Return whether --patience ends the run before its last step."""
        ended = 0 < self.config.patience <= self.progress.best.since
        return ended and self.progress.unfinished is None and self.progress.step < self.config.steps

    def _save(self) -> None:
        self.saver.save()
        self.best.checkpointed()

    def _report_best(self) -> None:
        """Say how the last evaluation compares with the best one, and whether that ended the run."""
        progress = self.progress
        if progress.best.step is not None and self.evaluated is not None and self.evaluated[0] == progress.step:
            step, loss = self.evaluated
            bits, size = bits_per_byte(loss, self.bytes_per_token), f"{self.bytes_per_token:.3g}"
            size += " byte" if size == "1" else " bytes"
            self.reporter.fact(
                "bits",
                f"{bits:.3f} per byte at the end; the validation split has {size} per {self.run.tokenizer.unit}",
            )
            self.reporter.best(progress.best.step, verdict(progress.best, step, loss, progress.spikes.mean))
        if self._patience_ended():
            self.reporter.note(
                f"training ended at step {progress.step:,} of {self.config.steps:,}: {option('patience')} allows "
                f"{counted(self.config.patience, 'evaluation')} without a better validation loss."
            )

    def _step(self, step: int) -> Record:
        """Take one optimizer step and return its line of metrics.jsonl.

        Raises StoppedRun, with weights and moments as they were before the step.
        """
        config, trainer, progress = self.config, self.trainer, self.progress
        started = time.perf_counter()
        loss = trainer.backward(step)
        norm = trainer.norm()
        record: Record = {**FIRST_RECORD, "step": step, "loss": loss, "grad_norm": norm}
        wrong = not_finite(loss, norm)
        if wrong:
            self._skip_or_stop(step, wrong)
            progress.step, progress.skipped = step, progress.skipped + 1
            return {**record, "loss": None, "grad_norm": None, "skipped": progress.skipped}
        if self.crosscheck is not None and step % config.crosscheck_every == 0:
            paused = time.perf_counter()
            found = self.crosscheck.compare(step, loss, trainer.gradients, trainer.microbatches(step))
            if config.optimizer == "muon":  # AdamW computes a few lines, Muon as much as a layer does
                self.crosscheck.compare_update(
                    step, trainer.state, trainer.backend,
                    lambda backend, state: trainer.apply(backend, state, step, norm),
                )  # fmt: skip
            record |= {"crosscheck": found.error, "crosscheck_tensor": found.tensor}
            started += time.perf_counter() - paused
        self.updating = True
        _, record["lr"] = trainer.update(step, loss, norm)
        progress.step, self.skipped_in_a_row = step, 0
        self.updating = False
        seconds = max(time.perf_counter() - started, TICK)
        record["tokens_per_s"] = config.accumulate * config.batch * config.model.ctx / seconds
        usual = progress.spikes.add(loss)
        if usual is not None:
            record["spike"] = loss - usual
        return record

    def _skip_or_stop(self, step: int, wrong: str) -> None:
        """Report where a NaN or an infinity arose. Raises StoppedRun, except with --on-nan skip.

        If the step is skipped, the gradient is 0 again.
        """
        origin = describe_origin(step, self.trainer, self.crosscheck)
        self.skipped_in_a_row += 1
        if self.config.on_nan == "skip" and self.skipped_in_a_row <= MOST_SKIPPED:
            count = self.progress.skipped + 1
            self.reporter.note(f"step {step:,} was skipped ({count:,} so far): {wrong}; {origin}.")
            return
        raise StoppedRun(
            f"Stopped at step {step:,}: {wrong}; {origin}. The run is saved as it was before this step. A smaller "
            f"{option('lr')} in a new run may help. To see the error again: "
            f"{resuming(self.run.folder, crosscheck_every=1)}"
        )

    def _conclude(self, record: Record) -> None:
        """Evaluate a step if that is due, then log and show it.

        If a signal interrupts the evaluation, the resumed run starts with that evaluation.
        """
        config, step, progress = self.config, record["step"], self.progress
        if step == 0 or step % config.eval_every == 0 or step == config.steps:
            progress.unfinished = record
            loss = evaluate(self.trainer.model, self.validation, config.batch, self.eval_batches, self._stopped)
            if loss is None:
                return
            record["val_loss"] = loss
            record["val_bits_per_byte"] = bits_per_byte(loss, self.bytes_per_token)
            self.evaluated = step, loss
            self.best.judge(loss)
        progress.unfinished = None
        self.saver.folder.log(record)  # before the step is shown, which fails if the reader closed the pipe
        if "spike" in record:
            loss, usual = record["loss"], record["loss"] - record["spike"]
            self.reporter.note(f"step {step:,}: the loss jumped to {loss:.4g} from an average of about {usual:.4g}.")
        self.reporter.step(record)
        if config.sample_every and step % config.sample_every == 0 and step < config.steps and not self.stop():
            self.reporter.sample(step, short_sample(self.run, config.seed))

    @functools.cached_property
    def bytes_per_token(self) -> float:
        """How many bytes a token of the validation split stands for, in the mean over those that are evaluated."""
        ctx = self.config.model.ctx
        return bytes_per_token(self.validation, self.run.tokenizer, ctx, self.config.batch, self.eval_batches)

    def _stopped(self) -> bool:
        return bool(self.stop())

    def _draw(self) -> None:
        """Draw the losses into the run's folder, if they can be drawn."""

        def draw() -> bytes:
            from ..plots import about, draw_losses, png

            subtitle = about(self.run.folder, self.run.model.config)
            return png(draw_losses(self.run.history, subtitle, self.run.tokenizer.unit))

        picture = drawn(LOSS, draw, self.reporter.note)
        if picture is not None:
            with self.saver.trying():
                write_atomically(self.run.folder / LOSS, picture)

    def _skipped_before(self) -> int:
        """Return how many steps a resumed run had skipped just before its checkpoint."""
        if not self.progress.skipped:
            return 0
        records = [*self.run.history, *([self.progress.unfinished] if self.progress.unfinished else [])]
        return len(list(itertools.takewhile(lambda record: "skipped" in record, reversed(records))))

    def _evaluated_batches(self) -> int:
        """Return how many batches an evaluation covers, 0 for the whole split; note it if it is not what was asked."""
        if self.config.eval_batches:
            return self.config.eval_batches
        ctx, batch = self.config.model.ctx, self.config.batch
        count = usual_evaluation(self.validation, ctx, batch)
        if count:
            self.reporter.note(
                f"each evaluation covers {count * batch * ctx:,} {self.run.tokenizer.unit}s, spread over the "
                f"validation split; {option('eval_batches')} changes this."
            )
        return count
