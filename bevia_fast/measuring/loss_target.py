"""How long training takes to reach a validation loss, for recipes of ours and for the same ones in PyTorch.

Each run begins with the weights of its seed, and is evaluated every so many steps, always by our own kernels: PyTorch
hands its weights over. The seconds are those of the steps alone: gradient, clipping, update, and drawing the batch.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import default_threads, open_backend
from ..config import TrainConfig
from ..data.corpus import Batches, Corpus, usual_evaluation
from ..data.texts import encoded_text
from ..errors import StoppedRun
from ..machine import cpu_name
from ..model.gpt import GPT
from ..model.parameters import Parameters
from ..planning.memory import refuse_training
from ..reporter import Progress, Reporter
from ..training.compiling import warm_up
from ..training.evaluation import evaluate
from ..training.schedule import learning_rate
from ..training.step import Trainer
from .competitor import Competitor
from .loss_options import BenchLossConfig
from .results import today


@dataclass(frozen=True)
class LossRun:
    """One run. `step`, `tokens` and `seconds` are those until the target was reached, None if it was not."""

    seed: int
    best: float | None  # the lowest validation loss; None if there was none that is finite
    step: int | None = None
    tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class LossResult:
    """All seeds of a recipe, by one program. Means and spreads are None unless every seed has reached the target; a
    spread is the largest less the smallest."""

    recipe: str
    program: str
    target: float
    preset: str
    data: list[str]
    steps: int
    every: int
    threads: int
    runs: list[LossRun]
    seconds: float | None = None
    seconds_spread: float | None = None
    tokens: float | None = None
    tokens_spread: float | None = None
    cpu: str = ""
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def with_means(self) -> LossResult:
        """Return the same with means and spreads."""
        found: dict[str, float] = {}
        for name in ("seconds", "tokens"):
            values = [getattr(run, name) for run in self.runs]
            if None not in values:
                found |= {name: statistics.mean(values), f"{name}_spread": max(values) - min(values)}
        return replace(self, **found)  # type: ignore[arg-type]  # the names are those of fields


class Runner(ABC):
    """A run in the hands of a program."""

    @abstractmethod
    def advance(self, first: int, count: int) -> float:
        """Take steps first .. first + count - 1, counted from 1, and return their seconds. Raises StoppedRun if a loss
        is not finite."""

    @abstractmethod
    def weights(self) -> Parameters:
        """Return the weights."""


class OwnRunner(Runner):
    """A run by one of our backends, in this process."""

    def __init__(self, config: TrainConfig, corpus: Corpus) -> None:
        self.trainer = Trainer(config, config.model, open_backend(config.backend, config.threads), corpus.training)

    def advance(self, first: int, count: int) -> float:
        began = time.perf_counter()
        with np.errstate(all="ignore"):  # a step that is not finite is found by `update`
            for step in range(first, first + count):
                self.trainer.update(step, self.trainer.backward(step))
        return time.perf_counter() - began

    def weights(self) -> Parameters:
        return self.trainer.weights


class TorchRunner(Runner):
    """The same run by PyTorch, in a process of its own."""

    def __init__(self, config: TrainConfig, corpus: Corpus, competitor: Competitor, folder: Path) -> None:
        self.config, self.competitor, self.folder = config, competitor, folder
        self.found = Parameters.initial(config.model, config.seed)
        model, windows = config.model, config.steps * config.accumulate * config.batch
        starts = Batches(corpus.training, model.ctx, config.batch, config.seed).starts(0, windows)
        np.savez(folder / "weights.npz", **dict[str, Any](self.found))
        np.savez(folder / "data.npz", tokens=corpus.training[:], starts=starts)
        size = {"ctx": model.ctx, "dim": model.dim, "layers": model.layers, "heads": model.heads, "batch": config.batch,
                "vocab": model.vocab_size, "dtype": model.dtype, "bias": model.bias}  # fmt: skip
        names = ("beta1", "beta2", "eps", "weight_decay", "grad_clip", "accumulate")
        competitor.ask("train", size=size, weights=str(folder / "weights.npz"), data=str(folder / "data.npz"),
                       rates={name: getattr(config, name) for name in names})  # fmt: skip

    def advance(self, first: int, count: int) -> float:
        c = self.config
        rates = [
            learning_rate(step, steps=c.steps, lr=c.lr, min_lr=c.min_lr, warmup=c.warmup)
            for step in range(first, first + count)
        ]
        path = self.folder / "now.npz"
        answer = self.competitor.ask("advance", first=first, rates=rates, weights=str(path))
        with np.load(path) as archive:
            for name, view in self.found.items():
                view[...] = archive[name]
        if not answer["finite"]:
            raise StoppedRun("the loss is not finite")
        return float(answer["seconds"])

    def weights(self) -> Parameters:
        return self.found


def peer_trains(config: TrainConfig) -> bool:
    """Return whether a peer has this recipe."""
    model = config.model
    return config.optimizer == "adamw" and model.positions == "learned" and not model.dropout


def bench_loss(asked: BenchLossConfig, progress: Progress) -> Iterator[LossResult]:
    """Yield the result of each recipe by each program. Raises UserError for what cannot run here."""
    progress.stage("Reading the text")
    corpus = Corpus(encoded_text(asked.config(asked.recipe[0], 1), Reporter()))
    threads = asked.threads or default_threads()
    for recipe in dict.fromkeys(asked.recipe):
        usual = asked.config(recipe, 1)
        model = replace(usual.model, vocab_size=len(corpus.tokenizer))
        corpus.check_length(model.ctx)
        refuse_training(usual, model)
        progress.stage(f"{recipe}: compiling")
        warm_up(model, open_backend(asked.backend, asked.threads), lambda name, *rest: None, usual.optimizer)
        programs = [f"bevia-fast, {asked.backend}", *(asked.peers() if peer_trains(usual) else [])]
        for program in programs:
            runs, versions = [], dict[str, str]()
            for seed in asked.numbers():
                progress.stage(f"{recipe}, {program}, seed {seed}")
                config = replace(asked.config(recipe, seed), model=model)
                with _runner(program, config, corpus, threads, asked, versions) as runner:
                    runs.append(run_until(asked, config, corpus, runner, progress))
            result = LossResult(
                recipe, program, asked.target, asked.preset, list(asked.data), usual.steps, asked.every, threads, runs,
                cpu=cpu_name(), date=today(), versions=versions,
            )  # fmt: skip
            yield result.with_means()


@contextlib.contextmanager
def _runner(
    program: str, config: TrainConfig, corpus: Corpus, threads: int, asked: BenchLossConfig, versions: dict[str, str]
) -> Iterator[Runner]:
    if program.startswith("bevia-fast"):
        yield OwnRunner(config, corpus)
        return
    with (
        tempfile.TemporaryDirectory(prefix="bevia-fast-") as folder,
        Competitor(program, threads, asked.torch_python) as competitor,
    ):
        competitor.ask("load")
        yield TorchRunner(config, corpus, competitor, Path(folder))
        versions |= competitor.ask("facts")["versions"]


def run_until(
    asked: BenchLossConfig, config: TrainConfig, corpus: Corpus, runner: Runner, progress: Progress
) -> LossRun:
    """Train until the target is reached or the steps are over."""
    best, seconds, step = math.inf, 0.0, 0
    judge: GPT | None = None
    count = config.eval_batches or usual_evaluation(corpus.validation, config.model.ctx, config.batch)
    while step < config.steps:
        size = min(asked.every, config.steps - step)
        try:
            seconds += runner.advance(step + 1, size)
        except StoppedRun:
            break
        step += size
        judge = judge or GPT(config.model, open_backend(config.backend, config.threads), runner.weights())
        loss = evaluate(judge, corpus.validation, config.batch, count)
        assert loss is not None  # nothing stops this evaluation
        best = min(best, loss)
        progress.advance(step, config.steps, f"validation loss {loss:.3f}")
        if loss <= asked.target:
            tokens = step * config.accumulate * config.batch * config.model.ctx
            return LossRun(config.seed, best, step, tokens, seconds)
    return LossRun(config.seed, best if math.isfinite(best) else None)


def as_objects(results: list[LossResult]) -> list[dict[str, Any]]:
    """Return the results as JSON holds them."""
    return [asdict(result) for result in results]
