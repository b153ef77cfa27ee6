"""Whether the sizes that `--preset auto` chooses are as good as the presets, in the same time on the same texts.

    python bench/fitting.py --minutes 30 --data shakespeare.txt other.txt --out fitting

trains the four presets and the chosen sizes on each text, one after another, with each seed, and prints the best and
the last validation loss. A run that is there already is not trained again, so an interrupted comparison goes on. It
takes texts x seeds x 5 x minutes on a machine that must do nothing else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bevia_fast import Run, TrainConfig, preset, train
from bevia_fast.config import PRESETS
from bevia_fast.errors import ConfigError
from bevia_fast.planning.fitting import fit


def sizes(text: str, minutes: float) -> Iterator[tuple[str, TrainConfig]]:
    """Yield each way to train on a text, with its name."""
    base = TrainConfig(data=(text,), minutes=minutes, sample_every=0, film=0)
    yield "auto", fit(base)[0].config
    for name in PRESETS:
        chosen = preset(name)
        yield name, replace(base, model=chosen.model, batch=chosen.batch)


def result(config: TrainConfig, folder: Path) -> tuple[Run, float, float]:
    """Train, unless the run is there, and return it with its best and its last validation loss."""
    run = Run.load(folder) if (folder / "sample.txt").exists() else train(replace(config, out=str(folder)))
    losses = [record["val_loss"] for record in run.history if record["step"] and record["val_loss"] is not None]
    return run, min(losses), losses[-1]


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--data", nargs="+", required=True, help="texts, each trained on by itself")
    asked.add_argument("--minutes", type=float, default=30.0)
    asked.add_argument("--seeds", type=int, nargs="+", default=[1337, 1, 2])
    asked.add_argument("--out", type=Path, default=Path("fitting"))
    options = asked.parse_args()
    print("| text | sizes | seed | parameters | steps | best | last |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for text in options.data:
        for name, config in sizes(text, options.minutes):
            for seed in options.seeds:
                where = f"| {Path(text).name} | {name} | {seed} |"
                folder = options.out / f"{Path(text).stem}-{name}-{seed}"
                try:
                    run, best, last = result(replace(config, seed=seed), folder)
                except ConfigError:  # not a single step fits into the time
                    print(f"{where} | 0 | | |", flush=True)
                    continue
                print(f"{where} {run.model.parameters.count:,} | {run.config.steps:,} | {best:.3f} | {last:.3f} |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
