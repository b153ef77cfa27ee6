"""What is written about an experiment: a report in Markdown, the numbers as JSON, and a picture as PNG and SVG."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..canvas import BLUE, VERMILLION, Figure, fixed_style, label_log_axis, legend_below, plain, rendered
from ..files import write_atomically
from .answers import NATS, Cell, apart, best_rate, differences, loss_of, losses, mean, sentence
from .runner import Asked

COLORS = (BLUE, VERMILLION, "#009E73", "#CC79A7")  # Okabe & Ito


def result(asked: Asked, cells: list[dict[str, Any]], facts: dict[str, str]) -> dict[str, Any]:
    """Return everything that a reader needs to check the answer. `facts`: the command, the text and the machine."""
    arms = [arm.name for arm in asked.experiment.arms]
    return {
        "experiment": asked.name, "question": asked.experiment.question, "prediction": asked.experiment.prediction,
        "answer": sentence(cells, arms, asked.length, asked.experiment.unit), "facts": facts, "arms": arms,
        "steps": asked.length,
        "seeds": sorted({cell["seed"] for cell in cells}), "rates": asked.rates, "cells": cells,
        "unit": asked.experiment.unit,
    }  # fmt: skip


def write_report(folder: Path, found: dict[str, Any]) -> list[Path]:
    """Write all files, and return their paths, the report first."""
    figure = draw(found)
    contents = {
        "report.md": report(found).encode(), "result.json": json.dumps(found, indent=1).encode(),
        "curves.png": rendered(figure, "png"), "curves.svg": rendered(figure, "svg"),
    }  # fmt: skip
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def report(found: dict[str, Any]) -> str:
    """Return the report in Markdown."""
    cells, arms, rates = found["cells"], found["arms"], found["rates"]
    lines = [
        f"# {found['question']}", "", f"**Expected:** {found['prediction']}", "", f"**Answer:** {found['answer']}", "",
        "![Losses while training, and at the end by learning rate](curves.png)", "",
        "## Validation loss at the end", "", f"Mean over the seeds, in {_unit(found)}. The best rate of each arm is "
        "in bold.", "", "| learning rate | " + " | ".join(arms) + " |", "|---:" * (len(arms) + 1) + "|",
    ]  # fmt: skip
    for rate in rates:
        shown = []
        for arm in arms:
            own = losses(cells, arm, rate)
            value = _shown(mean(list(own.values()))) if own else "-"
            shown.append(f"**{value}**" if rate == best_rate(cells, arm) else value)
        lines.append(f"| {rate:g} | " + " | ".join(shown) + " |")
    lines += ["", "## Each seed, at the best rate of its arm", "", "| seed | " + " | ".join(arms) + " |"]
    lines.append("|---:" * (len(arms) + 1) + "|")
    for seed in found["seeds"]:
        row = [_shown(losses(cells, arm, best_rate(cells, arm))[seed]) for arm in arms]
        lines.append(f"| {seed} | " + " | ".join(row) + " |")
    lines += ["", "## Inside", "", *_inside(cells, arms), "", "## Differences from the first arm", ""]
    for other in differences(cells, arms)[1:]:
        lines.append(f"- {other.arm}: {apart(other) if math.isfinite(other.loss) else 'diverged'}")
    if found.get("pages"):
        lines += ["", "## Pages", "", "The model of each arm at its best rate, with the first seed:", ""]
        lines += [f"- [{arm}]({name})" for arm, name in found["pages"].items()]
    lines += ["", "## How", "", *(f"- {name}: {value}" for name, value in found["facts"].items())]
    seconds = sum(cell["seconds"] for cell in cells)
    lines.append(f"- {len(cells)} runs of {found['steps']:,} steps took {seconds / 60:.1f} minutes")
    return "\n".join(lines) + "\n"


MEASURES = {
    "gradient_first": "gradient of each layer at the first step (norm)",
    "gradient_last": "the same at the last step",
    "stream": "stream after each layer (root mean square)",
    "likeness": "how alike the positions are (mean cosine)",
    "attended": "keys that share the attention of each layer",
}


def _inside(cells: list[Cell], arms: list[str]) -> list[str]:
    """Return a table of what was measured in each layer, first to last, at the best rate; the mean over the seeds."""
    lines = ["| measure | " + " | ".join(arms) + " |", "|---|" + "---|" * len(arms)]
    for measure, label in MEASURES.items():
        row = []
        for arm in arms:
            rate = best_rate(cells, arm)
            lists = [cell[measure] for cell in cells if (cell["arm"], cell["rate"]) == (arm, rate) and measure in cell]
            means = [math.fsum(values) / len(values) for values in zip(*lists, strict=True)]
            row.append(", ".join(f"{value:.3g}" for value in means) or "-")
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return lines


def _unit(found: dict[str, Any]) -> str:
    """Return the unit of the losses; the results of earlier versions do not name it."""
    return str(found.get("unit", NATS))


def _shown(loss: float) -> str:
    return f"{loss:.4f}" if math.isfinite(loss) else "diverged"


@fixed_style()
def draw(found: dict[str, Any]) -> Figure:
    """Draw the curves of all seeds at each arm's best rate, and the loss at the end of every run by learning rate."""
    cells, arms = found["cells"], found["arms"]
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, arm in enumerate(arms):
        color, rate = COLORS[number % len(COLORS)], best_rate(cells, arm)
        own = [cell for cell in cells if cell["arm"] == arm]
        label = f"{arm}, best at {plain(rate)}"
        for cell in (cell for cell in own if cell["rate"] == rate and cell["curve"]):
            steps, _, validation = zip(*cell["curve"], strict=True)
            left.plot(steps, validation, color=color, linewidth=1.2, alpha=0.8, label=label)
            label = "_"  # only once in the legend
        shift = 1.03 ** (number - (len(arms) - 1) / 2)  # so that the dots of the arms do not cover each other
        dots = [(cell["rate"] * shift, loss_of(cell)) for cell in own if math.isfinite(loss_of(cell))]
        if dots:
            right.plot(*zip(*dots, strict=True), "o", color=color, markersize=4, alpha=0.8)
        rates = [each for each in found["rates"] if losses(cells, arm, each)]
        means = [(each, mean(list(losses(cells, arm, each).values()))) for each in rates]
        means = [(each * shift, value) for each, value in means if math.isfinite(value)]
        if means:
            right.plot(*zip(*means, strict=True), color=color, linewidth=1)
    left.set(xlabel="step", ylabel=f"validation loss ({_unit(found)})", title="each seed, at the best rate")
    right.set(xscale="log", xlabel="learning rate", title="at the end: each run, and the mean of the seeds")
    if len(found["rates"]) > 1:
        label_log_axis(right.xaxis, min(found["rates"]), max(found["rates"]))
    legend_below(figure, left)
    figure.suptitle(found["question"], fontsize=11, parse_math=False)
    return figure
