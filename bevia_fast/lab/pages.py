"""A page of the explorer for each arm of an experiment, on the same pieces of the validation text.

Beside it lies the model in a folder, so that the commands which the page prints run: `bevia-fast generate` and others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..explorer.exploring import LARGEST, make_page
from ..files import writing
from ..kernels import get_backend
from ..model.gpt import GPT
from ..runs.modelfile import load_trained
from ..runs.trained import Run
from .answers import best_rate
from .cells import Text
from .runner import Asked

PIECES, LENGTH = 3, 48  # prompts of a page, and their characters, at most as many as the shortest context


def write_pages(
    folder: Path, asked: Asked, text: Text, cells: Sequence[dict[str, Any]]
) -> tuple[dict[str, str], list[str]]:
    """Write a page of each arm, with the model of the first seed at the rate that suits the arm best.

    `folder` must hold the models, as `run_experiment` leaves them there if pages are asked for. Returns the names of
    the files by arm, and a sentence about each arm that has no page. Raises CheckpointError for a model that cannot be
    read.
    """
    written, notes = {}, []
    prompts = _prompts(asked, text)
    for arm in asked.experiment.arms:
        parameters, tokenizer, step = load_trained(asked.model_path(folder, arm, best_rate(cells, arm.name)))
        name = re.sub(r"[^a-z0-9.]+", "-", arm.name.lower()).strip("-.") or "arm"
        model = GPT(parameters.config, get_backend("numpy"), parameters)
        run = Run(folder / f"model-{name}", model, tokenizer, step=step)
        with writing(run.folder):
            run.folder.mkdir(exist_ok=True)
        run.save(run.folder)
        try:
            page = make_page(run, prompts, most=LARGEST, origin="validation text")
            page.save(folder / f"page-{name}.html")
            written[arm.name] = f"page-{name}.html"
        except UserError as error:
            notes.append(f"{arm.name} has no page: {error}")
    return written, notes


def _prompts(asked: Asked, text: Text) -> list[str]:
    """Return pieces of the validation text, at even distances."""
    shortest = min(asked.experiment.config(arm, 1.0, 1).model.ctx for arm in asked.experiment.arms)
    length = min(LENGTH, shortest)
    places = [(len(text.validation) - length) * piece // PIECES for piece in range(PIECES)]
    return [text.tokenizer.decode(text.validation[place : place + length]) for place in places]
