"""Train with every combination of some options, and print the validation loss that each ends with.

    python bench/sweep.py --set dim=64 layers=2 heads=2 --vary lr=1e-3,2e-3,4e-3 --seeds 1337 1 2 --out sweep.jsonl

`--vary min_lr=lr/10,lr/100` follows the learning rate. Each result is one line of the file, written as soon as it is
known; combinations that the file has already are not trained again. `--table` prints a table of a file.

The losses do not depend on how busy the machine is. Nothing is timed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bevia_fast.backends import open_backend
from bevia_fast.config import ModelConfig, TrainConfig, preset
from bevia_fast.data.corpus import Corpus, usual_evaluation
from bevia_fast.data.texts import encoded_text
from bevia_fast.errors import StoppedRun, UserError
from bevia_fast.reporter import Reporter
from bevia_fast.training.evaluation import evaluate
from bevia_fast.training.step import Trainer

Options = dict[str, Any]


def value(text: str) -> Any:
    """Return an option's value: a number, True or False, or a word."""
    try:
        return json.loads(text.lower())
    except ValueError:
        return text


def combinations(fixed: list[str], varied: list[str]) -> list[Options]:
    """Return the options of each run, the last of `varied` changing fastest."""
    lists = [(name, choices.split(",")) for name, _, choices in (each.partition("=") for each in [*fixed, *varied])]
    found = []
    for chosen in itertools.product(*(choices for _, choices in lists)):
        options = {name.replace("-", "_"): value(text) for (name, _), text in zip(lists, chosen, strict=True)}
        for name, text in options.items():
            if isinstance(text, str) and text.startswith("lr/"):
                options[name] = options.get("lr", TrainConfig.lr) / float(text[3:])
        found.append(options)
    return found


def trained(config: TrainConfig) -> dict[str, Any]:
    """Train without a folder; return the losses on the validation split, None where training diverged."""
    corpus = Corpus(encoded_text(config, Reporter()))
    config = replace(config, model=replace(config.model, vocab_size=len(corpus.tokenizer)))
    trainer = Trainer(config, config.model, open_backend(config.backend, config.threads), corpus.training)
    count = config.eval_batches or usual_evaluation(corpus.validation, config.model.ctx, config.batch)
    curve: list[tuple[int, float]] = []
    try:
        for step in range(1, config.steps + 1):
            trainer.update(step, trainer.backward(step))
            if step % config.eval_every == 0 or step == config.steps:
                loss = evaluate(trainer.model, corpus.validation, config.batch, count)
                assert loss is not None  # nothing stops this evaluation
                curve.append((step, loss))
    except StoppedRun:
        return {"val_loss": None, "curve": curve}
    return {"val_loss": curve[-1][1], "curve": curve}


def table(records: list[dict[str, Any]]) -> str:
    """Return a table of the combinations: mean over the seeds, spread, and each loss."""
    groups: dict[str, dict[int, float | None]] = {}
    for record in records:
        of = {name: each for name, each in record.items() if name not in ("seed", "val_loss", "curve")}
        groups.setdefault(json.dumps(of), {})[record["seed"]] = record["val_loss"]
    lines = []
    for key, losses in groups.items():
        known = [loss for loss in losses.values() if loss is not None]
        mean = f"{statistics.mean(known):.3f}" if known else "diverged"
        each = " ".join("-" if loss is None else f"{loss:.3f}" for loss in losses.values())
        about = json.loads(key)
        named = " ".join(f"{name}={each:g}" if isinstance(each, float) else f"{name}={each}"
                         for name, each in about["options"].items())  # fmt: skip
        lines.append(f"{mean:>9}  {each:<24}  {Path(about['data']).name or 'default text'}, {about['preset']}: {named}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--vary", nargs="*", default=[], metavar="NAME=VALUE,...")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1337])
    parser.add_argument("--data", default="", metavar="FILE")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE")
    parser.add_argument("--table", action="store_true", help="print what the file has, and train nothing")
    asked = parser.parse_args()
    records = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    if asked.table:
        print(table(records))
        return 0
    names = {f for kind in (TrainConfig, ModelConfig) for f in kind.__dataclass_fields__}
    for options, seed in itertools.product(combinations(asked.set, asked.vary), asked.seeds):
        if unknown := options.keys() - names:
            raise UserError(f"There is no option {sorted(unknown)[0]!r}.")
        about = {"preset": asked.preset, "data": asked.data, "options": options, "seed": seed}
        if any(record.items() >= about.items() for record in records):
            continue
        data = (asked.data,) if asked.data else ()
        found = trained(preset(asked.preset, **options, seed=seed, threads=asked.threads, data=data))
        records.append(about | found)
        with asked.out.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(table(records[-1:]), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
