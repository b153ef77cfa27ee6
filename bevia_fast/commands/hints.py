"""What an option or a command that does not exist may have meant.

Guessing from the spelling alone misleads: --device is not --tie. So other programs' names are listed with their
meaning, and the spelling decides only where a word differs from an option by a slip of the fingers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# How alike a word and the guess must be, from 0 to 1: --stepz and --steps are at 0.8, --device and --tie at 0.2.
ALIKE = 0.75

# Names in nanoGPT and in other programs -> what they are here.
OTHER_NAMES = {
    "ctx": ("block-size", "context", "context-length", "context-size", "ctx-len", "n-ctx", "seq-len", "seq-length",
            "sequence-length", "max-seq-len", "n-positions"),
    "dim": ("n-embd", "n-embed", "d-model", "embed-dim", "embedding-dim", "embedding-size", "hidden", "hidden-dim",
            "hidden-size", "width", "channels", "model-dim"),
    "layers": ("n-layer", "n-layers", "num-layers", "num-hidden-layers", "blocks", "n-blocks", "depth"),
    "heads": ("n-head", "n-heads", "num-heads", "num-attention-heads", "attention-heads"),
    "activation": ("act", "activation-function", "hidden-act"),
    "tie": ("tie-weights", "weight-tying", "tie-word-embeddings"),
    "dtype": ("data-type",),
    "precision": ("bf16", "bfloat16", "amp", "autocast", "mixed-precision"),
    "batch": ("batch-size", "micro-batch-size", "train-batch-size", "bs", "b"),
    "name": ("run-name", "wandb-run-name", "experiment-name", "exp-name"),
    "steps": ("max-iters", "iters", "iterations", "max-steps", "num-steps", "n-steps", "train-steps", "niter"),
    "accumulate": ("gradient-accumulation-steps", "grad-accum", "accumulation-steps", "accumulate-grad-batches"),
    "lr": ("learning-rate", "alpha", "step-size"),
    "min-lr": ("min-learning-rate", "final-lr"),
    "warmup": ("warmup-iters", "warmup-steps"),
    "weight-decay": ("wd", "decay", "l2"),
    "eps": ("epsilon", "adam-eps", "adam-epsilon"),
    "optimizer": ("optim", "optimizer-type"),
    "muon-lr": ("muon-learning-rate", "matrix-lr"),
    "muon-momentum": ("momentum",),
    "beta1": ("adam-beta1",),
    "beta2": ("adam-beta2",),
    "grad-clip": ("clip", "clip-grad", "clip-grad-norm", "gradient-clip", "gradient-clipping", "max-grad-norm",
                  "max-norm"),
    "eval-every": ("eval-interval", "eval-steps", "val-interval", "validate-every"),
    "eval-batches": ("eval-iters", "val-batches"),
    "sample-every": ("sample-interval",),
    "save-every": ("save-interval", "save-steps", "checkpoint-every", "checkpoint-interval", "always-save-checkpoint"),
    "keep": ("save-total-limit", "keep-last"),
    "resume": ("init-from", "resume-from", "resume-from-checkpoint", "restart", "continue", "load"),
    "out": ("out-dir", "output", "output-dir", "outdir", "o", "save-dir", "run-dir", "out-file", "output-file"),
    "data": ("dataset", "data-dir", "data-path", "input", "input-file", "file", "files", "train-data", "text", "corpus",
             "i"),
    "recompute": ("gradient-checkpointing", "checkpointing", "activation-checkpointing"),
    "threads": ("num-threads", "n-threads", "nthreads", "workers", "num-workers", "jobs", "cpus", "cores", "j"),
    "prompt": ("start", "prefix", "seed-text", "context-text"),
    "tokens": ("tokenizer", "vocab"),
    "length": ("max-new-tokens", "max-tokens", "max-length", "n-predict", "num-tokens", "chars", "n"),
    "temperature": ("temp", "t"),
    "top-k": ("topk", "k"),
    "top-p": ("topp", "p", "nucleus"),
    "seed": ("random-seed", "rng-seed", "manual-seed"),
    "config": ("config-file", "cfg", "conf"),
    "version": ("ver", "v"),
}  # fmt: skip
MEANING = {name: meant for meant, names in OTHER_NAMES.items() for name in names}

# Names of what this program has no option for, and why.
NOTHING_LIKE_IT = {
    ("device", "gpu", "gpus", "cuda", "cpu", "mps", "accelerator", "devices"):
        "every run computes on the CPU, with --backend and --threads",
    ("compile", "jit", "torch-compile"): "the numba backend always compiles",
    ("fp16", "half"):
        "the CPU computes in float32 or float64, see --dtype, and multiplies in bfloat16 with --precision bf16",
    ("epochs", "epoch", "num-epochs", "num-train-epochs", "max-epochs"):
        "--steps says how long to train; bevia-fast plan shows how often that goes through the text",
    ("num-samples", "samples", "n-samples"): "each call writes one text, and another --seed another one",
    ("lr-decay-iters", "decay-lr", "lr-schedule", "scheduler", "lr-scheduler"):
        "the learning rate falls from --lr to --min-lr until the last of the --steps",
    ("log-interval", "log-every", "wandb", "wandb-log", "wandb-project", "tensorboard", "log-dir"):
        "every step is logged in metrics.jsonl in the run's folder",
    ("eval-only",): "a run evaluates before its first step and every --eval-every steps",
    ("model", "ckpt", "ckpt-path", "model-path"):
        "bevia-fast generate takes the run as it is, such as runs/1, and bevia-fast train --resume resumes it",
    ("verbose", "quiet", "q", "debug"): "the output is the same for everyone",
}  # fmt: skip
REASONS = {name: reason for names, reason in NOTHING_LIKE_IT.items() for name in names}


def unknown_option(word: str, known: Mapping[str, Any], asked: str, owner: Callable[[str], str]) -> str:
    """Return the sentence about an option that the command `asked`, whose options are `known`, does not have.

    `owner` returns the command that has an option, or nothing.
    """
    there = f"There is no option {word!r}"
    written = word.split("=")[0].lower().replace("_", "-")
    name = written.lstrip("-")
    if f"--{name}" in known and not known[f"--{name}"].positional:  # -steps, --STEPS
        return f"{there}; that is --{name} here."
    if name in REASONS:
        return f"{there}: {REASONS[name]}."
    meant = MEANING.get(name, "")
    if f"--{meant}" in known or meant == "version":
        return f"{there}; that is --{meant} here."
    other = owner(f"--{meant or name}")
    if other:
        return f"{there} here; --{meant or name} is an option of {other}."
    return f"{there}{did_you_mean(written, _spellings(known))}; see {asked} --help."


def _spellings(known: Mapping[str, Any]) -> list[str]:
    names = [name for name, option in known.items() if not option.positional]
    return [*names, *(f"--no-{name[2:]}" for name in names if known[name].kind is bool)]


def other_name(name: str) -> str:
    """Return what an option of another program is called here, such as "ctx" for "block-size", or nothing."""
    return MEANING.get(name, "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean ...?)" if a word is one of `known` with a slip of the fingers, else nothing."""
    names = {name.lstrip("-"): name for name in known}  # the dashes, which are always alike, do not count
    close = difflib.get_close_matches(word.lstrip("-"), sorted(names), 1, ALIKE)
    return f" (did you mean {names[close[0]]}?)" if close else ""
