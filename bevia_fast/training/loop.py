"""Training: from options to a run, and the loop over its steps."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ..agreement.crosscheck import LiveCrosscheck
from ..backends import cache_folder, describe_backend, open_backend
from ..config import BackendName, GenerateConfig, TrainConfig
from ..data.corpus import Corpus, Tokens, usual_evaluation
from ..data.tokenfile import CodedText, coded_text
from ..errors import ConfigError, DataError, StoppedRun
from ..files import CONFIG, LOSS, SAMPLE, write_atomically
from ..machine import readable
from ..model.parameters import Parameters
from ..model.writing import stream
from ..planning.memory import refuse_training
from ..reporter import Record, Reporter
from ..runs.checkpoint import Checkpoint, Progress, candidates, newest_good, refuse_changes, versions
from ..runs.folder import RunFolder, config_text
from ..runs.trained import Run
from .compiling import warm_up
from .diagnosis import first_not_finite
from .saving import Saver
from .signals import finish_on_signal
from .step import Trainer, evaluate, not_finite

SAMPLE_LENGTH, FINAL_SAMPLE_LENGTH = 160, 500  # characters
MOST_SKIPPED = 10  # consecutive steps that may be skipped
FIRST_RECORD: Record = {
    "step": 0, "loss": None, "val_loss": None, "lr": 0.0, "grad_norm": None, "tokens_per_s": None,
}  # fmt: skip


def train(config: TrainConfig | None = None, reporter: Reporter | None = None) -> Run:
    """Train a model on text and save it in a run folder.

        run = train(TrainConfig(data=["shakespeare.txt"], steps=200))
        print(generate(run, prompt="The "))

    With `config.resume`, continue a run (see `checkpoint.stored_config`); it ends with the same bits as if it had never
    stopped. Raises UserError, before anything is written, if the options, the text or the checkpoint are invalid, and
    StoppedRun if the loss or the gradient is not finite or the last save failed. Ctrl-C ends the run after the current
    step; `run.interrupted` is then set.
    """
    config, reporter = config or TrainConfig(), reporter or Reporter()
    resumed: Checkpoint | None = None
    if config.resume:
        candidates(config.resume)  # raises before anything is touched
        folder = RunFolder.existing(Path(config.resume))
    else:
        folder = RunFolder(config.out)
    try:
        damaged: list[str] = []
        if config.resume:
            resumed, damaged = newest_good(config.resume)  # now that no other process can train here
            refuse_changes(resumed.config, config)
        return _train(config, reporter, folder, resumed, damaged)
    finally:
        folder.close()


def _train(
    config: TrainConfig, reporter: Reporter, folder: RunFolder, resumed: Checkpoint | None, damaged: list[str]
) -> Run:
    """Train in a folder that is locked if it exists."""
    corpus, text = _read_corpus(config, resumed, reporter)
    model_config = replace(config.model, vocab_size=len(corpus.tokenizer))
    config = replace(config, model=model_config)
    progress = resumed.progress if resumed else Progress(unfinished=dict(FIRST_RECORD))
    if config.steps < progress.step:
        raise ConfigError(f"--steps is {config.steps:,}; {config.resume} has done {progress.step:,} already.")
    other: BackendName = "numpy" if config.backend == "numba" else "numba"
    backend = open_backend(config.backend, config.threads)
    read = sum(parameters.flat.nbytes for parameters in resumed.tensors.values()) if resumed else 0
    refuse_training(config, model_config, held=read)
    trainer = Trainer(config, model_config, backend, corpus.training, resumed.tensors if resumed else None)
    crosscheck = None
    if config.crosscheck_every:
        crosscheck = LiveCrosscheck(trainer.weights, open_backend(other, config.threads), recompute=config.recompute)
    backends = [backend] if crosscheck is None else [backend, crosscheck.model.backend]

    reporter.start(config)
    ended: Run | None = None
    try:
        facts = {"text": _describe_text(corpus), "model": _describe_model(trainer.weights)}
        for name, value in facts.items():
            reporter.fact(name, value)
        if text.path is not None:
            reporter.fact("cache", f"{readable(text.codes.nbytes)} of tokens in {text.path}")
        for each in backends:
            problem = warm_up(model_config, each, reporter.compiling)
            if problem:
                reporter.note(f"compiled kernels cannot be cached: {problem} ({cache_folder()}).")
        reporter.compiled()
        facts["kernels"] = describe_backend(backend)
        reporter.fact("kernels", facts["kernels"])
        with finish_on_signal(reporter.interrupted) as stop:
            written = {"format_version": 1, **asdict(config), "facts": facts}
            if resumed is None:
                folder.create(written)
            reporter.fact("folder", str(folder.path))
            saver = Saver(folder, config, corpus.tokenizer, text.fingerprint, progress, trainer.tensors, reporter.note)
            if resumed is not None:
                _report_resumed(resumed, damaged, config, reporter)
                folder.cut_back(progress.step - (progress.unfinished is not None))
                with saver.trying():
                    write_atomically(folder.path / CONFIG, config_text(written).encode())
            run = Run(folder.path, trainer.model, corpus.tokenizer)
            with np.errstate(all="ignore"):  # every step checks for NaN and infinity
                _Session(config, trainer, crosscheck, corpus.validation, run, saver, reporter, stop).go_on()
        run.model.forget()
        ended = run
    finally:
        reporter.end(ended.folder if ended else None, ended.interrupted if ended else 0)
    return run


def _read_corpus(config: TrainConfig, resumed: Checkpoint | None, reporter: Reporter) -> tuple[Corpus, CodedText]:
    """Return the text as a corpus and as read. Raises DataError if it is not the text of the resumed run."""
    if resumed is not None and "-" in config.data and sys.stdin is not None and sys.stdin.isatty():
        raise DataError(
            f"{config.resume} reads its text from standard input, which is a terminal now; redirect the text again, or "
            "name it with --data."
        )
    text = coded_text(config.data, reporter)
    if resumed is not None and text.fingerprint != resumed.fingerprint and not config.allow_changed_text:
        raise DataError(
            f"The text is not the one that {config.resume} started with; --allow-changed-text continues with this one."
        )
    corpus = Corpus(text, resumed.tokenizer if resumed else None)
    corpus.check_length(config.model.ctx)
    return corpus, text


def _report_resumed(resumed: Checkpoint, damaged: list[str], config: TrainConfig, reporter: Reporter) -> None:
    for each in damaged:
        reporter.note(f"{each} Resuming from the checkpoint before it.")
    reporter.fact("resumed", f"after step {resumed.progress.step:,} of {config.steps:,}, from {resumed.path.name}")
    now = versions()
    different = [f"{name} {value}, now {now.get(name)}" for name, value in resumed.versions.items()
                 if value != now.get(name)]  # fmt: skip
    if different:
        reporter.note(f"the run started with {'; '.join(different)}: the last bits may differ.")


class _Session:
    """The steps of a run, and what is logged, saved and shown between them."""

    def __init__(
        self, config: TrainConfig, trainer: Trainer, crosscheck: LiveCrosscheck | None, validation: Tokens, run: Run,
        saver: Saver, reporter: Reporter, stop: Callable[[], int],
    ) -> None:  # fmt: skip
        self.config, self.trainer, self.crosscheck, self.validation = config, trainer, crosscheck, validation
        self.run, self.saver, self.reporter, self.stop = run, saver, reporter, stop
        self.progress, self.folder = saver.progress, saver.folder
        self.skipped_in_a_row = self._skipped_before()
        ctx, batch = config.model.ctx, config.batch
        self.eval_batches = config.eval_batches or usual_evaluation(validation, ctx, batch)
        if self.eval_batches and not config.eval_batches:
            reporter.note(
                f"an evaluation covers {self.eval_batches * batch * ctx:,} characters, spread over the validation "
                f"split; --eval-batches changes that."
            )

    def _skipped_before(self) -> int:
        """Return how many consecutive steps were skipped just before a resumed run starts."""
        if not self.progress.skipped:
            return 0
        records = [*self.run.history, *([self.progress.unfinished] if self.progress.unfinished else [])]
        return len(list(itertools.takewhile(lambda record: "skipped" in record, reversed(records))))

    def go_on(self) -> None:
        """Continue the run to its last step, or until a signal arrives."""
        progress, began = self.progress, time.monotonic()
        try:
            if progress.unfinished is not None:
                if not self.config.resume:
                    self.saver.save()  # so that the run can be resumed from before its first step
                self._conclude(progress.unfinished)
            while progress.step < self.config.steps and not self.stop():
                self._conclude(self._step(progress.step + 1))
                if self.saver.due():
                    self.saver.save()
        except (StoppedRun, OSError):  # OSError: the output can no longer be written
            self.saver.save()
            self._draw()
            raise
        self.run.interrupted = self.stop() if progress.step < self.config.steps or progress.unfinished else 0
        self.saver.save()
        seconds = time.monotonic() - began
        self._draw()
        text = short_sample(self.run, self.config.seed, FINAL_SAMPLE_LENGTH)
        with self.saver.trying():
            write_atomically(self.run.folder / SAMPLE, (text + "\n").encode("utf-8", "replace"))
        self.reporter.sample(progress.step, text)
        self.reporter.saved(self.saver.count, self.saver.size, self.saver.seconds, seconds)
        if self.saver.problem:
            raise StoppedRun(f"The run is at step {progress.step:,}, and the last save failed: {self.saver.problem}")

    def _step(self, step: int) -> Record:
        """Take one optimizer step and return its line of metrics.jsonl. Raises StoppedRun before anything changes."""
        config, trainer, progress = self.config, self.trainer, self.progress
        started = time.perf_counter()
        loss = trainer.backward(step)
        norm = trainer.norm()
        record: Record = {**FIRST_RECORD, "step": step, "loss": loss, "grad_norm": norm}
        wrong = not_finite(loss, norm)
        if wrong:
            self._not_finite(step, wrong)
            progress.step, progress.skipped = step, progress.skipped + 1
            return {**record, "loss": None, "grad_norm": None, "skipped": progress.skipped}
        if self.crosscheck is not None and step % config.crosscheck_every == 0:
            paused = time.perf_counter()
            found = self.crosscheck.compare(step, loss, trainer.gradients, trainer.microbatches(step))
            record |= {"crosscheck": found.error, "crosscheck_tensor": found.tensor}
            started += time.perf_counter() - paused
        _, record["lr"] = trainer.update(step, loss, norm)
        progress.step, self.skipped_in_a_row = step, 0
        record["tokens_per_s"] = config.accumulate * config.batch * config.model.ctx / (time.perf_counter() - started)
        usual = progress.spikes.look(loss)
        if usual is not None:
            record["spike"] = loss - usual
        return record

    def _not_finite(self, step: int, wrong: str) -> None:
        """Report where the NaN or infinity began. Raises StoppedRun unless the step is to be skipped."""
        trainer = self.trainer
        place = first_not_finite(trainer.model, trainer.gradients, trainer.microbatches(step))
        where = f"it begins with {place}" if place else "when the step is repeated, every tensor is finite"
        if self.crosscheck is not None:
            other = self.crosscheck.model
            again = first_not_finite(other, self.crosscheck.gradients, trainer.microbatches(step))
            result = f"it begins with {again}" if again else "everything is finite"
            where += f"; with the {other.backend.name} backend {result}"
        self.skipped_in_a_row += 1
        if self.config.on_nan == "skip" and self.skipped_in_a_row <= MOST_SKIPPED:
            count = self.progress.skipped + 1
            self.reporter.note(f"step {step:,} is skipped, {count:,} so far: {wrong}; {where}.")
            return
        raise StoppedRun(
            f"Stopped at step {step:,}: {wrong}; {where}. The run is saved as it was before that step; to repeat it: "
            f"bevia-fast train --resume {self.run.folder} --crosscheck-every 1. A new run with a smaller --lr may help."
        )

    def _conclude(self, record: Record) -> None:
        """Evaluate if it is time, then log and show a step. A resumed run repeats an evaluation that a signal ended."""
        config, step, progress = self.config, record["step"], self.progress
        if step == 0 or step % config.eval_every == 0 or step == config.steps:
            progress.unfinished = record
            loss = evaluate(self.trainer.model, self.validation, config.batch, self.eval_batches, self._stopped)
            if loss is None:
                return
            record["val_loss"] = loss
        progress.unfinished = None
        self.folder.log(record)  # before it is shown, which fails if the output is gone
        if "spike" in record:
            loss, usual = record["loss"], record["loss"] - record["spike"]
            self.reporter.note(f"step {step:,}: the loss jumped to {loss:.4g} from about {usual:.4g}.")
        self.reporter.step(record)
        if config.sample_every and step % config.sample_every == 0 and step < config.steps and not self.stop():
            self.reporter.sample(step, short_sample(self.run, config.seed))

    def _stopped(self) -> bool:
        return bool(self.stop())

    def _draw(self) -> None:
        from ..plots import draw_losses, png

        with self.saver.trying():  # reading the metrics can fail too
            write_atomically(self.run.folder / LOSS, png(draw_losses(self.run.history)))


def short_sample(run: Run, seed: int, length: int = SAMPLE_LENGTH) -> str:
    """Return a text that the model writes without a prompt, at temperature 0.8."""
    return "".join(stream(run.model, run.tokenizer, GenerateConfig(run="", length=length, seed=seed)))


def _describe_text(corpus: Corpus) -> str:
    training, validation = len(corpus.training), len(corpus.validation)
    return (
        f"{training + validation:,} characters, {len(corpus.tokenizer)} distinct; "
        f"{training:,} for training, {validation:,} for validation"
    )


def _describe_model(weights: Parameters) -> str:
    c = weights.config
    return (
        f"{weights.count:,} parameters: {c.layers} layers of {c.dim} channels and {c.heads} heads, context {c.ctx}, "
        f"{c.dtype}"
    )
