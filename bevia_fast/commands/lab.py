"""`bevia-fast lab`: experiments that train with and without something, and report whether it matters."""

from __future__ import annotations

import platform
import shlex
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from ..backends import describe_backend, open_backend
from ..config import LabConfig
from ..errors import UserError
from ..lab.cells import Text
from ..lab.experiments import EXPERIMENTS
from ..lab.pages import write_pages
from ..lab.reports import result, write_report
from ..lab.runner import Asked, run_experiment
from ..training.compiling import warm_up
from .arguments import PROG
from .hints import did_you_mean
from .tables import FittedConsole, make_table


def run(config: LabConfig) -> int:
    """List the experiments, or run one and write its report; return the exit code."""
    console = FittedConsole()
    if config.experiment == "list":
        rows = [[name, experiment.question] for name, experiment in EXPERIMENTS.items()]
        console.show(make_table("", ["experiment", "question"], [], rows, []))
        return 0
    name = config.experiment
    if name not in EXPERIMENTS:
        raise UserError(
            f"There is no experiment {name!r}{did_you_mean(name, EXPERIMENTS)}; `{PROG} lab list` lists them."
        )
    experiment = EXPERIMENTS[name]
    asked = Asked(name, experiment, config.seeds, config.steps, config.minutes, config.pages)
    text = Text.read(replace(experiment.base, data=config.data), experiment.characters, experiment.tokens)
    ctx = max(experiment.config(arm, experiment.rates[0], 1).model.ctx for arm in experiment.arms)
    if min(min(len(each.training), len(each.validation)) for each in (text, *text.others.values())) <= 2 * ctx:
        raise UserError(f"The text is too short for contexts of {ctx} characters; it needs at least {30 * ctx:,}.")
    folder = Path(config.out or Path("lab") / name)
    backend = open_backend(config.backend, config.threads)
    warm_up(replace(experiment.base.model, vocab_size=text.vocabulary, dropout=0.1), backend, lambda *_: None)
    console.say(f"{experiment.question}", f"Expected: {experiment.prediction}")

    def tell(number: int, count: int, cell: dict[str, Any]) -> None:
        loss = "diverged" if cell["val_loss"] is None else f"loss {cell['val_loss']:.4f}"
        console.say(f"{number} of {count}: {cell['arm']}, rate {cell['rate']:g}, seed {cell['seed']}: {loss}")

    cells = run_experiment(asked, folder, text, backend, tell)
    found = result(asked, cells, _facts(config, text, describe_backend(backend)))
    if config.pages:
        found["pages"], notes = write_pages(folder, asked, text, cells)
        for note in notes:
            console.say(f"note: {note}")
    paths = write_report(folder, found)
    console.say(f"Answer: {found['answer'].replace('*', '')}", f"The report is in {paths[0]}.")
    return 0


def _facts(config: LabConfig, text: Text, kernels: str) -> dict[str, str]:
    words = [PROG, "lab", config.experiment, "--seeds", str(config.seeds)]
    words += ["--steps", str(config.steps)] if config.steps else []
    words += ["--data", *config.data] if config.data else []
    sizes = f"{len(text.training):,} characters for training, {len(text.validation):,} for validation"
    return {
        "command": f"`{shlex.join(words)}`", "text": sizes, "kernels": kernels, "python": platform.python_version(),
        "date": f"{date.today():%Y-%m-%d}",
    }  # fmt: skip
