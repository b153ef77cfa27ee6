"""Whether the sizes that `--preset auto` chooses are as good as the presets, in the same time on the same texts.

    python bench/fitting.py --minutes 30 --data shakespeare.txt other.txt --out fitting

trains the four presets and the chosen sizes on each text, one after another, with each seed, and prints the best and
the last validation loss. How many steps fit into the time is found for all of them first, in a minute or two in which
the machine must do nothing else, and kept in OUT/steps.json; the losses after so many steps do not depend on how busy
it is. A run that is there already is not trained again, so an interrupted comparison goes on. It takes texts x seeds x
5 x minutes; `--only-steps` ends after the first part.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bevia_fast import Run, TrainConfig, preset, train
from bevia_fast.config import PRESETS
from bevia_fast.errors import ConfigError
from bevia_fast.planning.budget import with_steps
from bevia_fast.planning.fitting import fit
from bevia_fast.reporter import Reporter
from bevia_fast.training.opening import prepare


def sizes(text: str, minutes: float) -> Iterator[tuple[str, TrainConfig]]:
    """Yield each way to train on a text, with its name."""
    base = TrainConfig(data=(text,), minutes=minutes, sample_every=0, film=0)
    yield "auto", fit(base)[0].config
    for name in PRESETS:
        chosen = preset(name)
        yield name, replace(base, model=chosen.model, batch=chosen.batch)


def steps_in_time(config: TrainConfig) -> int:
    """Return how many steps fit into `config.minutes`, as `train` finds it; 0 if none does."""
    try:
        return prepare(config, Reporter()).config.steps
    except ConfigError:
        return 0


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
    asked.add_argument("--only-steps", action="store_true", help="find the numbers of steps, and train nothing")
    options = asked.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = options.out / "steps.json"
    known: dict[str, int] = json.loads(found.read_text()) if found.exists() else {}
    runs = []
    for text in options.data:
        for name, config in sizes(text, options.minutes):
            key = f"{Path(text).stem}-{name}-{options.minutes:g}"
            if key not in known:
                known[key] = steps_in_time(config)
                found.write_text(json.dumps(known, indent=1))
            runs.append((text, name, config, known[key]))
    if options.only_steps:
        return
    print("| text | sizes | seed | parameters | steps | best | last |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (text, name, config, steps), seed in itertools.product(runs, options.seeds):
        where = f"| {Path(text).name} | {name} | {seed} |"
        if not steps:
            print(f"{where} | 0 | | |", flush=True)
            continue
        folder = options.out / f"{Path(text).stem}-{name}-{options.minutes:g}-{seed}"
        run, best, last = result(replace(with_steps(config, steps), seed=seed), folder)
        print(f"{where} {run.model.parameters.count:,} | {steps:,} | {best:.3f} | {last:.3f} |", flush=True)


if __name__ == "__main__":
    main()
