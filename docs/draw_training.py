"""Draw the README's picture: the loss of a real run, and what its model writes meanwhile.

    python docs/draw_training.py                  # train as `bevia-fast train` does, and draw docs/training*.png

Two pictures are written, for light and for dark pages.
"""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bevia_fast import TrainConfig, train
from bevia_fast.reporter import Record, Reporter

DOCS = Path(__file__).parent
STYLES = {
    "training.png": {
        "page": "#ffffff", "text": "#24292f", "grid": "#d0d7de", "train": "#0072B2", "val": "#D55E00",
    },
    "training-dark.png": {
        "page": "#0d1117", "text": "#e6edf3", "grid": "#30363d", "train": "#56B4E9", "val": "#E69F00",
    },
}  # fmt: skip  # colors that can be told apart with any color vision (Okabe & Ito)
LINES, COLUMNS = 6, 72  # of each sample


class Watching(Reporter):
    """Keep what is drawn."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.samples: list[tuple[int, str]] = []

    def step(self, record: Record) -> None:
        self.records.append(record)
        if record["step"] % 250 == 0:
            print(f"step {record['step']}", flush=True)

    def sample(self, step: int, text: str) -> None:
        self.samples.append((step, text))


def draw(watching: Watching, style: dict[str, str]) -> Figure:
    """The losses on the left, three samples on the right."""
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained", facecolor=style["page"])
    losses, texts = figure.subplots(1, 2, width_ratios=(1, 1.25))
    training = [(r["step"], r["loss"]) for r in watching.records if r["loss"] is not None]
    validation = [(r["step"], r["val_loss"]) for r in watching.records if r["val_loss"] is not None]
    losses.plot(*zip(*training, strict=True), color=style["train"], linewidth=0.8, alpha=0.8, label="training")
    losses.plot(*zip(*validation, strict=True), color=style["val"], marker="o", label="validation")
    losses.set(xlabel="step", ylabel="loss (nats per character)", facecolor=style["page"])
    losses.grid(color=style["grid"], linewidth=0.6)
    losses.legend(frameon=False, labelcolor=style["text"])
    losses.tick_params(colors=style["text"])
    for axis in (losses.xaxis.label, losses.yaxis.label):
        axis.set_color(style["text"])
    for spine in losses.spines.values():
        spine.set_color(style["grid"])
    texts.axis("off")
    shown = [watching.samples[0], watching.samples[1], watching.samples[-1]]
    for number, (step, text) in enumerate(shown):
        top = 1.0 - number / len(shown)
        title = f"after step {step:,}" if step else "before the first step"
        options: dict[str, Any] = {"transform": texts.transAxes, "va": "top", "color": style["text"]}
        texts.text(0.0, top, title, fontsize=10, fontweight="bold", **options)
        texts.text(0.0, top - 0.055, _excerpt(text), fontsize=8.5, family="monospace", parse_math=False, **options)
    return figure


def _excerpt(text: str) -> str:
    """The first lines of a sample, cut to the width of the picture; what a font may lack becomes a dot."""
    visible = "".join(char if char == "\n" or 32 <= ord(char) < 127 else "·" for char in text)
    lines = [line for part in visible.split("\n") if part.strip() for line in textwrap.wrap(part, COLUMNS) or [""]]
    return "\n".join(lines[:LINES])


def main() -> None:
    watching = Watching()
    with tempfile.TemporaryDirectory() as folder:
        train(TrainConfig(out=f"{folder}/run"), watching)
    for name, style in STYLES.items():
        draw(watching, style).savefig(DOCS / name, facecolor=style["page"])
        print(DOCS / name)


if __name__ == "__main__":
    main()
