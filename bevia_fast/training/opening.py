"""Before the first step: read and check everything that a run needs, compile its kernels, open its folder.

`train` calls `open_folder`, `prepare`, `compile_and_describe` and `begin`, in this order. Only `begin` writes results.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..agreement.crosscheck import LiveCrosscheck
from ..backends import damaged_code, describe_backend, open_backend
from ..config import BackendName, TrainConfig
from ..data.corpus import Corpus
from ..data.texts import encoded_text
from ..data.tokenfile import CodedText
from ..data.vocabulary import Vocabulary
from ..errors import ConfigError, DataError, counted
from ..files import METRICS, OPTIONS, RUNS, write_atomically
from ..kernels.contract import Backend
from ..machine import readable
from ..model.optimizer import second_moment
from ..model.parameters import Parameters
from ..naming import option
from ..planning.budget import Budget, steps_that_fit, with_steps
from ..planning.memory import refuse_training
from ..reporter import Record, Reporter
from ..runs.checkpoint import (
    Checkpoint,
    candidates,
    newest_good,
    refuse_changes,
    refuse_lost_text,
    versions,
)
from ..runs.folder import RunFolder, config_text
from ..runs.initial import initial_model
from ..runs.progress import Best, Progress
from .compiling import warm_up
from .saving import Saver
from .step import Trainer
from .trial import time_pieces

FIRST_RECORD: Record = {
    "step": 0, "loss": None, "val_loss": None, "lr": 0.0, "grad_norm": None, "tokens_per_s": None,
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A run that can start: its options are valid, its text and checkpoint are read, its arrays are allocated."""

    config: TrainConfig  # with the vocabulary size of the text
    text: CodedText
    corpus: Corpus
    trainer: Trainer
    crosscheck: LiveCrosscheck | None
    progress: Progress
    resumed: Checkpoint | None  # the checkpoint that the run resumes from
    damaged: list[str]  # what is wrong with each newer checkpoint
    budget: Budget | None  # from which the steps follow, with --minutes
    started: str  # with which weights a new run starts; "" for random ones


def open_folder(config: TrainConfig) -> RunFolder:
    """Open the folder of a new run, which is not created yet, or lock the folder of a run to resume.

    Raises CheckpointError if a new run would overwrite something, or if there is nothing to resume.
    """
    if not config.resume:
        return RunFolder(config.out or (str(Path(RUNS) / config.name) if config.name else ""))
    candidates(config.resume)  # raises before the folder is touched
    return RunFolder.existing(Path(config.resume))


def prepare(config: TrainConfig, reporter: Reporter) -> Prepared:
    """Read, check and allocate everything that a run needs.

    The folder of a run to resume must be locked, so that no other process replaces its checkpoints meanwhile. Raises
    UserError for options, a text or a checkpoint that cannot work.
    """
    resumed: Checkpoint | None = None
    damaged: list[str] = []
    if config.resume:
        resumed, damaged = newest_good(config.resume)
        refuse_changes(resumed.config, config)
        refuse_lost_text(resumed.config, config)
    tokenizer, tensors = (resumed.tokenizer, resumed.tensors) if resumed else (None, None)
    started = ""
    if config.init and not resumed:
        config, weights, tokenizer, step = initial_model(config)
        tensors = {
            "weights": weights, "first": Parameters(weights.config),
            "second": second_moment(config.optimizer, weights.config),
        }  # fmt: skip
        started = f"with the weights of {config.init}, after step {step:,}"
    text, corpus = _read_text(config, resumed, tokenizer, reporter)
    config = replace(config, model=replace(config.model, vocab_size=len(corpus.tokenizer)))
    progress = resumed.progress if resumed else Progress(unfinished=dict(FIRST_RECORD))
    if config.steps < progress.step:
        raise ConfigError(
            f"{option('steps')} is {config.steps:,}; it must be at least {progress.step:,}, the steps that "
            f"{config.resume} has already done."
        )
    backend = open_backend(config.backend, config.threads)
    budget = None
    if config.minutes:
        budget = _budget(config, backend, corpus, reporter)
        config = with_steps(config, budget.steps)
    if resumed and text.fingerprint != resumed.fingerprint:  # the losses of two texts cannot be compared
        progress.best = Best()
    allocated = sum(parameters.flat.nbytes for parameters in tensors.values()) if tensors else 0
    refuse_training(config, config.model, held=allocated)
    trainer = Trainer(config, config.model, backend, corpus.training, tensors, progress.order)
    crosscheck = None
    if config.crosscheck_every:
        other: BackendName = "numpy" if config.backend == "numba" else "numba"
        crosscheck = LiveCrosscheck(trainer.weights, open_backend(other, config.threads), recompute=config.recompute)
    return Prepared(config, text, corpus, trainer, crosscheck, progress, resumed, damaged, budget, started)


def _budget(config: TrainConfig, backend: Backend, corpus: Corpus, reporter: Reporter) -> Budget:
    """Return how many steps fit into --minutes, from a trial with compiled kernels."""
    refuse_training(config, config.model)  # before a trial that takes as much memory
    warm_up(config.model, backend, reporter.compiling, config.optimizer)
    reporter.compiled()
    return steps_that_fit(config, config.model, time_pieces(config, backend, corpus), len(corpus.validation))


def _read_text(
    config: TrainConfig, resumed: Checkpoint | None, tokenizer: Vocabulary | None, reporter: Reporter
) -> tuple[CodedText, Corpus]:
    """Return the text as it was read, and its tokens, with the given vocabulary or that of the text.

    Raises DataError if a resumed run started with another text, or if the vocabulary lacks one of its characters.
    """
    if resumed is not None and "-" in config.data and sys.stdin is not None and sys.stdin.isatty():
        raise DataError(
            f"{config.resume} reads its text from standard input, which is a terminal now; pipe the text in again, or "
            f"name it with {option('data')}."
        )
    text = encoded_text(config, reporter, tokenizer)
    if resumed is not None and text.fingerprint != resumed.fingerprint and not config.allow_changed_text:
        raise DataError(
            f"The text is not the one that {config.resume} started with; {option('allow_changed_text', True)} resumes "
            "with this one."
        )
    corpus = Corpus(text, tokenizer)
    corpus.check_length(config.model.ctx)
    return text, corpus


def compile_and_describe(prepared: Prepared, reporter: Reporter) -> dict[str, str]:
    """Compile the kernels and report the facts of a run; return those that options.json keeps."""
    text, trainer, crosscheck = prepared.text, prepared.trainer, prepared.crosscheck
    facts = {"text": _describe_text(prepared.corpus), "model": _describe_model(trainer.weights)}
    if prepared.budget is not None:
        facts["steps"] = prepared.budget.described(prepared.config.eval_every)
    if prepared.started:
        facts["start"] = prepared.started
    for name, value in facts.items():
        reporter.fact(name, value)
    if text.path is not None:
        reporter.fact("cache", f"{readable(text.codes.nbytes)} of tokens in {text.path}")
    backends = [trainer.backend] if crosscheck is None else [trainer.backend, crosscheck.model.backend]
    for backend in backends:
        problem = warm_up(prepared.config.model, backend, reporter.compiling, prepared.config.optimizer)
        if problem:
            reporter.note(f"compiled kernels cannot be saved for later runs: {problem}.")
    reporter.compiled()
    damaged = damaged_code()
    if damaged:
        reporter.note(f"{damaged}.")
    facts["kernels"] = describe_backend(trainer.backend, trainer.model.config.precision)
    reporter.fact("kernels", facts["kernels"])
    return facts


def _describe_text(corpus: Corpus) -> str:
    training, validation = len(corpus.training), len(corpus.validation)
    return (
        f"{counted(training + validation, corpus.tokenizer.unit)}, {corpus.tokenizer.described()}; "
        f"{training:,} for training, {validation:,} for validation"
    )


def _describe_model(weights: Parameters) -> str:
    c = weights.config
    sizes = f"ctx {c.ctx}, dim {c.dim}, layers {c.layers}, heads {c.heads}"
    return f"{counted(weights.count, 'parameter')}: {sizes}, {c.dtype}{', products in bf16' * (c.precision == 'bf16')}"


def begin(prepared: Prepared, folder: RunFolder, facts: dict[str, str], reporter: Reporter) -> Saver:
    """Create the folder of a new run, or bring the files of a resumed run back to its checkpoint.

    Raises CheckpointError if the folder of a new run cannot be created.
    """
    config, progress, resumed, trainer = prepared.config, prepared.progress, prepared.resumed, prepared.trainer
    written = {"format_version": 1, **asdict(config), "facts": facts}
    if resumed is None:
        folder.create(written)
    reporter.fact("folder", str(folder.path))
    tokenizer, fingerprint = prepared.corpus.tokenizer, prepared.text.fingerprint
    saver = Saver(folder, config, tokenizer, fingerprint, progress, trainer.tensors, reporter.note)
    if resumed is not None:
        _report_resumed(resumed, prepared.damaged, config, reporter)
        aside = folder.cut_back(progress.step - (progress.unfinished is not None))
        if aside is not None:
            reporter.note(f"{METRICS} was damaged; its intact lines stay, and the whole file is kept as {aside}.")
        with saver.trying():
            write_atomically(folder.path / OPTIONS, config_text(written).encode())
    return saver


def _report_resumed(resumed: Checkpoint, damaged: list[str], config: TrainConfig, reporter: Reporter) -> None:
    for each in damaged:
        reporter.note(f"{each} Resuming from the checkpoint before it.")
    reporter.fact("resumed", f"after step {resumed.progress.step:,} of {config.steps:,}, from {resumed.path.name}")
    now = versions()
    changed = [
        f"{name} {value} (now {now.get(name)})" for name, value in resumed.versions.items() if value != now.get(name)
    ]
    if changed:
        reporter.note(f"the run started with {', '.join(changed)}; the last bits may differ.")
