"""Characters against byte pairs: train with each for the same time, and compare bits per byte.

    .venv/bin/python bench/tokens.py --time --out tokens.jsonl          # ms per step of each; on a quiet machine
    .venv/bin/python bench/tokens.py --seconds 30 --out tokens.jsonl    # the runs, whatever else the machine does

The number of steps follows from the times that the first command stored, so the second one needs no quiet machine. Each
result is stored as soon as it is known, and what is there is not computed again. Needs: pip install '.[tokens]'.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bevia_fast import preset
from bevia_fast.backends import open_backend
from bevia_fast.config import TrainConfig
from bevia_fast.data.corpus import Corpus
from bevia_fast.data.texts import encoded_text
from bevia_fast.training.evaluation import bits_per_byte, bytes_per_token, evaluate
from bevia_fast.training.step import Trainer

TIMED, WARM = 60, 10  # steps


def trainer_of(config: TrainConfig) -> tuple[TrainConfig, Corpus, Trainer]:
    corpus = Corpus(encoded_text(config))
    config = replace(config, model=replace(config.model, vocab_size=len(corpus.tokenizer)))
    backend = open_backend(config.backend, config.threads)
    return config, corpus, Trainer(config, config.model, backend, corpus.training)


def milliseconds(config: TrainConfig) -> float:
    """Return the median time of a step."""
    _, _, trainer = trainer_of(config)
    times = []
    for step in range(1, TIMED + WARM + 1):
        began = time.perf_counter()
        trainer.update(step, trainer.backward(step))
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times[WARM:]))


def trained(config: TrainConfig) -> dict[str, Any]:
    """Train to the last step, and return what came out, on the whole validation split."""
    config, corpus, trainer = trainer_of(config)
    for step in range(1, config.steps + 1):
        trainer.update(step, trainer.backward(step))
    loss = evaluate(trainer.model, corpus.validation, config.batch)
    size = bytes_per_token(corpus.validation, corpus.tokenizer, config.model.ctx, config.batch)
    assert loss is not None
    return {
        "loss": loss, "bytes_per_token": size, "bits_per_byte": bits_per_byte(loss, size),
        "epochs": config.steps * config.batch * config.model.ctx / len(corpus.training),
    }  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--recipe", default="")
    parser.add_argument("--tokens", nargs="+", default=["chars", "bpe:512", "bpe:2048"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1337, 1, 2])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    about = {"data": asked.data, "preset": asked.preset, "recipe": asked.recipe}
    for seed in asked.seeds[: 1 if asked.time else None]:
        for tokens in asked.tokens:
            config = preset(asked.preset, recipe=asked.recipe, data=asked.data, tokens=tokens, seed=seed)
            key = {**about, "tokens": tokens}
            times = [line["ms"] for line in lines if "ms" in line and line.items() >= key.items()]
            if asked.time:
                found = {**key, "ms": milliseconds(config)}
            else:
                key |= {"seed": seed, "seconds": asked.seconds}
                if any("loss" in line and line.items() >= key.items() for line in lines):
                    continue
                steps = math.floor(1e3 * asked.seconds / times[-1])
                found = {**key, "steps": steps, **trained(replace(config, steps=steps))}
            print(json.dumps(found), flush=True)
            with open(asked.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
